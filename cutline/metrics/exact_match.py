"""The share of images whose caption is one of its references, token by token (case and punctuation don't count)."""

from __future__ import annotations

import numpy as np

from cutline.metrics.base import Candidates, Floats, MeanMetric

SCORES = ("exact_match",)


class ExactMatch(MeanMetric):
    scores = SCORES

    def values(self, candidates: Candidates) -> Floats:
        tokens = self.references.tokens
        matches = np.zeros((len(self.references), 1))
        end = 0
        for image, many in enumerate(self.references.per_image.tolist()):
            begin, end = end, end + many
            mine = candidates.tokens[image]
            matches[image] = bool(mine) and mine in tokens[begin:end]
        return matches
