"""Training curves as SVG that stands inside the page and takes its colours, light or dark, from the page's CSS."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cutline.report.words import label

#: What matplotlib draws with → what the page's CSS calls it.
_COLOURS = {"#010203": "ink", "#040506": "muted", "#070809": "rule", "#0a0b0c": "accent", "#0d0e0f": "paper"}
INK, MUTED, RULE, ACCENT, PAPER = _COLOURS

#: The same numbers give the same bytes: no date, no random ids; text stays text.
_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "cutline", "font.size": 11, "axes.edgecolor": RULE, "axes.linewidth": 1.0,
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False, "axes.grid": True,
    "axes.grid.axis": "y", "grid.color": RULE, "grid.linewidth": 0.8, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.major.size": 4.0, "ytick.major.size": 0.0, "text.color": INK, "text.parse_math": False,
    "lines.solid_capstyle": "round",
}  # fmt: skip
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}

#: Points of a curve; more can't be told apart at this size.
_MOST_POINTS = 240

Point = tuple[float, float]


def loss_curve(log: Sequence[Mapping[str, Any]]) -> str:
    """Training loss as a line, validation loss as a line with dots; "" when the log has neither."""
    training, validation = smooth(points(log, "loss")), points(log, "val_loss")
    if not training and not validation:
        return ""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        axes.plot(*_columns(training), color=MUTED, linewidth=1.4)
        axes.plot(*_columns(validation), color=ACCENT, linewidth=1.6, marker="o", markersize=4)
        named = [("training", training, MUTED), ("validation", validation, ACCENT)]
        ends = [(text, found[-1], colour) for text, found, colour in named if found]
        upper = max(ends, key=lambda item: item[1][1])
        for text, end, colour in ends:
            above = (text, end, colour) == upper
            axes.annotate(
                text, end, (0, 9 if above else -9), textcoords="offset points", color=colour, ha="right",
                va="bottom" if above else "top",
            )  # fmt: skip
        axes.margins(y=0.16)
        return _svg(figure, "loss")


def score_curve(log: Sequence[Mapping[str, Any]], metric: str, chosen_step: int | None) -> str:
    """A validation score by step, the chosen checkpoint marked; "" when the log has none."""
    found = points(log, f"val_{metric}")
    if not found:
        return ""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes()
        axes.plot(*_columns(found), color=ACCENT, linewidth=1.6, marker="o", markersize=4)
        best = next((point for point in found if point[0] == chosen_step), None)
        if best:
            axes.plot(
                *best, marker="o", markersize=10, markerfacecolor=PAPER, markeredgecolor=ACCENT, markeredgewidth=2
            )
            side = _side(best[0], [step for step, _ in found])
            axes.annotate(
                f"chosen: {best[1]:.3f}", best, (0, 11), textcoords="offset points", ha=side, color=INK, weight="bold"
            )
        axes.margins(y=0.18)
        return _svg(figure, "score")


def points(log: Sequence[Mapping[str, Any]], key: str) -> list[Point]:
    """(step, value) of the rows that have a number there."""
    found = []
    for row in log:
        step, value = row.get("step"), row.get(key)
        if isinstance(step, int | float) and isinstance(value, int | float) and math.isfinite(value):
            found.append((float(step), float(value)))
    return found


def smooth(curve: Sequence[Point], most: int = _MOST_POINTS) -> list[Point]:
    """At most ``most`` points: neighbours are averaged."""
    size = -(-len(curve) // most) or 1
    parts = [curve[start : start + size] for start in range(0, len(curve), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def chosen_note(metric: str, chosen_step: int | None) -> str:
    """The line under the score curve."""
    note = f"{label(metric)} of captions generated for the validation images, by training step."
    return note + (f" The ring is the chosen checkpoint, step {chosen_step:,}." if chosen_step else "")


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.4, 2.7), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_major_locator(MaxNLocator(5))
    return figure, axes


def _columns(curve: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [x for x, _ in curve], [y for _, y in curve]


def _side(step: float, steps: Sequence[float]) -> str:
    """Which way a label at a step has room."""
    place = (step - min(steps)) / max(max(steps) - min(steps), 1.0)
    return "left" if place < 0.25 else "right" if place > 0.75 else "center"


def _svg(figure: Figure, name: str) -> str:
    """The figure as an ``<svg>`` to stand in a page: no prologue, no style of its own, ids of its own."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata=_NO_METADATA, transparent=True)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r'\b(id|xlink:href)="(#?)', rf'\1="\2{name}-', text)
    text = text.replace("url(#", f"url(#{name}-")
    text = re.sub(r"font-family: [^;\"]+;?", "", text)
    text = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\d+\.\d{2})\d+", r"\1", tag[0]), text)  # 0.01 px is enough
    text = re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r'<svg \1aria-hidden="true" focusable="false"', text)
    for colour, variable in _COLOURS.items():
        text = text.replace(colour, f"var(--{variable})")
    return text.strip()
