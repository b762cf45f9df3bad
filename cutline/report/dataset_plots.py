"""Drawings of a dataset: histograms, and the sizes of its images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import matplotlib
import numpy as np

from cutline.report.drawing import ACCENT, MUTED, STYLE, new_axes, svg

#: Bars of a histogram, at most.
_MOST_BARS = 40


def histogram(counts: Mapping[int, int], name: str, unit: str) -> str:
    """A bar for each number, or for each few in a row where they are many; the longest tail (0.1 %) in the last bar.

    Args:
        counts: number → how often.
        name: of the drawing, for its ids.
        unit: what is numbered, under the axis.
    """
    if not counts:
        return ""
    every, passed, last = sum(counts.values()), 0, max(counts)
    for number in sorted(counts):
        passed += counts[number]
        if passed >= 0.999 * every:
            last = number
            break
    first = min(counts)
    width = -(-(last - first + 1) // _MOST_BARS)
    bars: Counter[int] = Counter()
    for number, count in counts.items():
        bars[(min(number, last) - first) // width] += count
    with matplotlib.rc_context(STYLE):
        figure, axes = new_axes()
        centres = [first + width * (bar + 0.5) - 0.5 for bar in bars]
        axes.bar(centres, list(bars.values()), width=0.86 * width, color=ACCENT)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        if last - first < 3:  # two bars would be as wide as the drawing
            axes.set_xlim(first - 2.5, last + 2.5)
        axes.set_xlabel(unit + (f" ({last} and more in the last bar)" if last < max(counts) else ""), color=MUTED)
        return svg(figure, name)


def sizes(found: Mapping[tuple[int, int], int]) -> str:
    """Width against height in px, larger dots for more pictures; "" where all have one size."""
    if len(found) < 2:
        return ""
    # eight fields for each doubling: more can't be distinguished
    fields: Counter[tuple[int, int]] = Counter()
    for (width, height), count in found.items():
        fields[round(8 * np.log2(width)), round(8 * np.log2(height))] += count
    centres = 2 ** (np.array(list(fields)) / 8)
    counts = np.array(list(fields.values()), float)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_axes()
        axes.scatter(
            centres[:, 0], centres[:, 1], s=6 + 240 * counts / counts.max(), color=ACCENT, alpha=0.55, linewidths=0
        )
        edge = float(centres.max()) * 1.08
        axes.plot([0, edge], [0, edge], color=MUTED, linewidth=0.8, linestyle=":")
        axes.set_xlim(0, edge)
        axes.set_ylim(0, edge)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel("width in px; height upwards", color=MUTED)
        return svg(figure, "sizes")
