"""Drawings as SVG inside a page, in the light or dark colours of the page's CSS."""

from __future__ import annotations

import io
import re
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

#: What matplotlib draws with → what the page's CSS calls it.
_COLOURS = {"#010203": "ink", "#040506": "muted", "#070809": "rule", "#0a0b0c": "accent", "#0d0e0f": "paper"}
INK, MUTED, RULE, ACCENT, PAPER = _COLOURS

#: The same numbers give the same bytes: no date, no random ids; text stays text.
STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "cutline", "font.size": 11, "axes.edgecolor": RULE, "axes.linewidth": 1.0,
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False, "axes.grid": True,
    "axes.grid.axis": "y", "grid.color": RULE, "grid.linewidth": 0.8, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.major.size": 4.0, "ytick.major.size": 0.0, "text.color": INK, "text.parse_math": False,
    "lines.solid_capstyle": "round",
}  # fmt: skip
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def new_axes() -> tuple[Figure, Axes]:
    """A figure of the size that two stand beside each other."""
    figure = Figure(figsize=(4.4, 2.7), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_major_locator(MaxNLocator(5))
    return figure, axes


def svg(figure: Figure, name: str) -> str:
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
