"""CIDEr as first published: no clipping, no penalty on length.

Vedantam, Zitnick and Parikh 2015, equations 1-3, without stemming. coco-caption's "CIDEr" is CIDEr-D, see
:mod:`cutline.metrics.cider`.
"""

from __future__ import annotations

from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, MeanMetric
from cutline.metrics.cider import frequency_warnings, mean_similarity


class CiderOriginal(MeanMetric):
    scores = (
        ScoreInfo(
            "cider_original",
            "CIDEr",
            "The first published form of CIDEr-D: captions that repeat words are not penalised.",
        ),
    )

    def values(self, candidates: Candidates) -> Floats:
        return mean_similarity(candidates.ngrams, candidates.ngrams.overlap.cosines)[:, None]

    def facts(self) -> dict[str, str]:
        return {"df": f"references({len(self.references)})", "stem": "no"}

    def warnings(self) -> list[str]:
        return frequency_warnings(self)
