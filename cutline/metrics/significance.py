"""One bootstrap and one paired test for all metrics.

Images are drawn with replacement (groups together: the images of one article are not independent), and since a
metric's values depend on sums of statistics only, all resamples of all metrics are one matrix product with one shared
matrix of weights.

Efron and Tibshirani 1993 (percentile interval); Koehn 2004 (paired bootstrap); Noreen 1989, Riezler and Maxwell 2005
(approximate randomisation).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Reduce = Callable[[Floats], Floats]

#: The share of the resamples inside the interval.
LEVEL = 0.95
_BLOCK = 500_000  # weights held at once; 4 MB


def group_sums(statistics: Floats, groups: Sequence[Hashable] | None) -> Floats:
    """Statistics [n, S] summed over each group [G, S]; as they are without groups."""
    if groups is None:
        return statistics
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    if len(numbers) == len(statistics):
        return statistics
    sums = np.zeros((len(numbers), statistics.shape[1]))
    np.add.at(sums, [numbers[name] for name in groups], statistics)
    return sums


def resampled(statistics: Floats, resamples: int, seed: int) -> Floats:
    """Sums of statistics [resamples, S] over rows [G, S] drawn with replacement; G and seed decide the draws."""
    return np.concatenate([w @ statistics for w in draws(len(statistics), resamples, seed)])


def draws(rows: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each row is drawn, float64 [some resamples, rows] at a time."""
    random = np.random.default_rng(seed)
    block = max(1, _BLOCK // rows)
    for begin in range(0, resamples, block):
        many = min(block, resamples - begin)
        drawn = random.integers(rows, size=(many, rows)) + np.arange(many)[:, None] * rows
        yield np.bincount(drawn.ravel(), minlength=many * rows).reshape(many, rows).astype(np.float64)


def interval(values: Floats) -> tuple[Floats, Floats]:
    """Percentile interval of values [resamples, K]: low [K], high [K]."""
    levels = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.quantile(values, levels, axis=0)
    for k in np.flatnonzero(np.isnan(values).any(axis=0)):  # a resample in which the value can't be known
        known = values[~np.isnan(values[:, k]), k]
        low[k], high[k] = np.quantile(known, levels) if len(known) else (np.nan, np.nan)
    return low, high


@dataclass(frozen=True)
class Differences:
    """B minus A for each of K values, all float64 [K].

    Attributes:
        difference: of the values over all images.
        low, high: 95 % interval of the paired bootstrap.
        p_bootstrap: two-sided; how often a resample is off its mean by as much as the difference (Koehn 2004).
        p_randomisation: two-sided; how often swapping A and B at random for each group gives as large a difference.
    """

    difference: Floats
    low: Floats
    high: Floats
    p_bootstrap: Floats
    p_randomisation: Floats


def paired(
    a: Floats,
    b: Floats,
    reduce: Reduce,
    groups: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Differences:
    """Tests two systems on the same images.

    Args:
        a, b: statistics [n, S] of the same images in the same order.
        reduce: from sums [..., S] to values [..., K].
        groups: n names; images of one name are drawn and swapped together.
    """
    a, b = group_sums(a, groups), group_sums(b, groups)
    difference = reduce(b.sum(axis=0)) - reduce(a.sum(axis=0))
    width = a.shape[1]
    both = resampled(np.concatenate([a, b], axis=1), resamples, seed)
    drawn = reduce(both[:, width:]) - reduce(both[:, :width])
    low, high = interval(drawn)
    swapped = _swapped(a, b, reduce, resamples, seed)
    # rounding must not decide whether a resample that equals the difference counts
    slack = 1e-12 + 1e-9 * np.abs(difference)
    off = np.abs(drawn - drawn.mean(axis=0)) >= np.abs(difference) - slack
    larger = np.abs(swapped) >= np.abs(difference) - slack
    return Differences(
        difference=difference,
        low=low,
        high=high,
        p_bootstrap=(1 + off.sum(axis=0)) / (1 + resamples),
        p_randomisation=(1 + larger.sum(axis=0)) / (1 + resamples),
    )


def _swapped(a: Floats, b: Floats, reduce: Reduce, resamples: int, seed: int) -> Floats:
    """Differences [resamples, K] after swapping A and B for each group by the toss of a coin."""
    random = np.random.default_rng([seed, 1])
    block = max(1, _BLOCK // len(a))
    total_a, total_b, change = a.sum(axis=0), b.sum(axis=0), b - a
    found = []
    for begin in range(0, resamples, block):
        swap = random.integers(2, size=(min(block, resamples - begin), len(a))).astype(np.float64)
        moved = swap @ change
        found.append(reduce(total_b - moved) - reduce(total_a + moved))
    return np.concatenate(found)
