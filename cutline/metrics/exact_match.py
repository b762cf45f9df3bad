"""The share of images whose caption is one of its references, token by token (case and punctuation don't count)."""

from __future__ import annotations

import numpy as np

from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, MeanMetric


class ExactMatch(MeanMetric):
    scores = (
        ScoreInfo(
            "exact_match",
            "Exact match",
            "Share of captions that equal a reference, except for case and punctuation.",
            unit="share",
        ),
    )

    def values(self, candidates: Candidates) -> Floats:
        tokens = self.references.tokens
        matches = np.zeros((len(self.references), 1))
        end = 0
        for image, many in enumerate(self.references.per_image.tolist()):
            begin, end = end, end + many
            mine = candidates.tokens[image]
            matches[image] = bool(mine) and mine in tokens[begin:end]
        return matches
