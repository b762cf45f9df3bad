"""Lengths in words: mean, spread (standard deviation over images), and ratio to the references' mean length."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, Metric, ratio


class Length(Metric):
    """Statistics an image: words, their square, mean words of its references, 1."""

    scores = (
        ScoreInfo("length", "Length", "Words per caption.", unit="words", higher_is_better=None),
        ScoreInfo(
            "length_sd",
            "Length, SD",
            "How much the number of words varies between captions.",
            unit="words",
            higher_is_better=None,
        ),
        ScoreInfo(
            "length_ratio",
            "Length ratio",
            "Words of the captions divided by the mean number of words of their references.",
            higher_is_better=None,
        ),
    )
    compares = False

    @cached_property
    def _reference_mean(self) -> Floats:
        index = self.references.ngrams
        sums: Floats = np.add.reduceat(index.lengths, index.start).astype(np.float64)
        return sums / index.per_image

    def statistics(self, candidates: Candidates) -> Floats:
        words = candidates.ngrams.lengths.astype(np.float64)
        return np.stack([words, words**2, self._reference_mean, np.ones(len(words))], axis=1)

    def reduce(self, sums: Floats) -> Floats:
        mean = ratio(sums[..., 0], sums[..., 3])
        variance = np.maximum(0.0, ratio(sums[..., 1], sums[..., 3]) - mean**2)
        return np.stack([mean, np.sqrt(variance), ratio(sums[..., 0], sums[..., 2])], axis=-1)
