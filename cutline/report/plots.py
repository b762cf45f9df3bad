"""Training curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

from cutline.report.drawing import ACCENT, INK, MUTED, PAPER, STYLE, new_axes, svg

#: Points of a curve; more can't be distinguished at this size.
_MOST_POINTS = 240

Point = tuple[float, float]


def loss_curve(log: Sequence[Mapping[str, Any]]) -> str:
    """Training loss as a line, validation loss as a line with dots; "" when the log has neither."""
    training, validation = smooth(points(log, "loss")), points(log, "val_loss")
    if not training and not validation:
        return ""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_axes()
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
        return svg(figure, "loss")


def score_curve(log: Sequence[Mapping[str, Any]], metric: str, chosen_step: int | None) -> str:
    """A validation score by step, the chosen checkpoint marked; "" when the log has none."""
    found = points(log, f"val_{metric}")
    if not found:
        return ""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_axes()
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
        return svg(figure, "score")


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


def chosen_note(label: str, chosen_step: int | None) -> str:
    """The line under the score curve."""
    note = f"{label} of captions generated for the validation images, by training step."
    return note + (f" The ring is the chosen checkpoint, step {chosen_step:,}." if chosen_step else "")


def _columns(curve: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [x for x, _ in curve], [y for _, y in curve]


def _side(step: float, steps: Sequence[float]) -> str:
    """Which way a label at a step has room."""
    position = (step - min(steps)) / max(max(steps) - min(steps), 1.0)
    return "left" if position < 0.25 else "right" if position > 0.75 else "center"
