"""seq-rep-n: the share of a caption's n-grams that occur earlier in it, over all captions together.

Welleck et al. 2020, "Neural text generation with unlikelihood training". 0 is best; people's captions are close to it.
"""

from __future__ import annotations

import numpy as np

from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, Metric


class Repetition(Metric):
    """Statistics an image: n-grams of order 1…4 that came before in the caption, all n-grams of order 1…4."""

    scores = tuple(
        ScoreInfo(
            f"seq_rep{n}",
            f"seq-rep-{n}",
            f"Share of a caption's {grams} that occurred earlier in it.",
            unit="share",
            higher_is_better=False,
        )
        for n, grams in enumerate(("words", "pairs of words", "runs of three words", "runs of four words"), 1)
    )
    compares = False

    def statistics(self, candidates: Candidates) -> Floats:
        rows = np.zeros((len(candidates.captions), 8))
        for image, tokens in enumerate(candidates.tokens):
            words = tokens.split()
            for k in range(1, 5):
                grams = list(zip(*(words[i:] for i in range(k)), strict=False))
                rows[image, k - 1], rows[image, 3 + k] = len(grams) - len(set(grams)), len(grams)
        return rows

    def reduce(self, sums: Floats) -> Floats:
        shares: Floats = sums[..., :4] / np.maximum(sums[..., 4:], 1)
        return shares
