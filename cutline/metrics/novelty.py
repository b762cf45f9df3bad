"""The share of images whose caption is not a training caption, token by token. A missing caption doesn't count as new.

Left out if the training captions are unknown.

Nearly all of people's captions are new; a captioner that repeats its training set can score well and say little.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, MeanMetric


class Novelty(MeanMetric):
    scores = (ScoreInfo("novel", "Novel", "Share of captions that are not captions of training images.", unit="share"),)
    version = 2  # 1 counted an empty caption as new
    compares = False
    unknown: ClassVar[Mapping[str, str]] = {
        "novel": "the training captions are unknown (score against a dataset or a file with a train split)"
    }

    def values(self, candidates: Candidates) -> Floats:
        known = self.references.training_tokens
        if not known:
            return np.full((len(candidates.captions), 1), np.nan)
        return np.array([[bool(tokens) and tokens not in known] for tokens in candidates.tokens], np.float64)
