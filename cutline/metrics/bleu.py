"""BLEU-1…4 as coco-caption computes it.

Papineni et al. 2002; pycocoevalcap 1.2, ``bleu/bleu_scorer.py``: corpus counts, the closest reference length (ties to
the shorter), and two small numbers added so that nothing is divided by zero.
"""

from __future__ import annotations

import numpy as np

from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, Metric

_TINY, _SMALL = 1e-15, 1e-9  # the reference's, to the digit


class Bleu(Metric):
    """Statistics an image: matches of order 1…4, n-grams of order 1…4, words, words of the closest reference."""

    scores = (
        ScoreInfo(
            "bleu1",
            "BLEU-1",
            "Share of the captions' words that the references have; captions that are too short score less.",
        ),
        ScoreInfo("bleu2", "BLEU-2", "BLEU of single words and pairs of words, over the whole set."),
        ScoreInfo("bleu3", "BLEU-3", "BLEU of up to three words in a row, over the whole set."),
        ScoreInfo("bleu4", "BLEU-4", "BLEU of up to four words in a row, over the whole set."),
    )

    def statistics(self, candidates: Candidates) -> Floats:
        ngrams, index = candidates.ngrams, self.references.ngrams
        statistics = np.zeros((index.images, 10))
        statistics[:, :4] = ngrams.overlap.matches
        statistics[:, 4:8] = np.maximum(0, ngrams.lengths[:, None] - np.arange(4))
        statistics[:, 8] = ngrams.lengths
        statistics[:, 9] = self._closest(ngrams.lengths)
        return statistics

    def _closest(self, lengths: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Floats:
        """Length of each image's reference that is closest to the candidate's."""
        index = self.references.ngrams
        big = int(index.lengths.max()) + 1
        ranked = np.abs(index.lengths - lengths[index.image_of]) * big + index.lengths
        return (np.minimum.reduceat(ranked, index.start) % big).astype(np.float64)

    def reduce(self, sums: Floats) -> Floats:
        return bleu(sums)

    def facts(self) -> dict[str, str]:
        return {"len": "closest", "smooth": "coco"}


def bleu(sums: Floats) -> Floats:
    """BLEU-1…4, [..., 4], of summed statistics [..., 10]."""
    precision = (sums[..., 0:4] + _TINY) / (sums[..., 4:8] + _SMALL)
    value: Floats = np.cumprod(precision, axis=-1) ** (1 / np.arange(1, 5))
    brevity = (sums[..., 8] + _TINY) / (sums[..., 9] + _SMALL)
    penalty = np.where(brevity < 1, np.exp(1 - 1 / np.minimum(brevity, 1)), 1.0)
    return value * penalty[..., None]
