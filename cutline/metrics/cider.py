"""CIDEr-D, which coco-caption prints as "CIDEr".

Vedantam, Zitnick and Parikh 2015; pycocoevalcap 1.2, ``cider/cider_scorer.py``: tf-idf vectors of n-grams of order
1…4, document frequencies from the references being scored against, clipped counts, a Gaussian penalty on the difference
in length (sigma 6, lengths counted in bigrams), times 10.
"""

from __future__ import annotations

import numpy as np

from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, MeanMetric
from cutline.metrics.text.ngrams import CandidateNgrams, Ints

_SIGMA = 6.0
#: Document frequencies of fewer images than this say little.
FEW_IMAGES = 100


def cider_d(ngrams: CandidateNgrams) -> Floats:
    """CIDEr-D of each candidate against the references of its image, float64 [n]."""
    bigrams = np.maximum(0, ngrams.lengths - 1)[ngrams.candidate_of]
    bigrams -= np.maximum(0, ngrams.index.lengths - 1)[ngrams.reference_of]
    return mean_similarity(ngrams, ngrams.overlap.clipped * length_penalty(bigrams))


def length_penalty(difference: Ints) -> Floats:
    """1 for captions of the same length, less the more their numbers of bigrams differ."""
    penalty: Floats = np.e ** (-(difference.astype(np.float64) ** 2) / (2 * _SIGMA**2))
    return penalty


def mean_similarity(ngrams: CandidateNgrams, similarity: Floats) -> Floats:
    """float64 [n]: mean over a candidate's references and the orders, times 10.

    Args:
        similarity: float64 [R], of each comparison, summed over the orders.
    """
    sums = np.bincount(ngrams.candidate_of, similarity, minlength=len(ngrams.lengths))
    mean: Floats = sums / ngrams.index.ORDERS / ngrams.index.per_image[ngrams.image] * 10.0
    return mean


class Cider(MeanMetric):
    """The mean over images of CIDEr-D; document frequencies stay those of all images when images are resampled."""

    scores = (
        ScoreInfo(
            "cider",
            "CIDEr-D",
            "Agreement in phrases of up to four words; phrases that few images have count more; from 0 to 10.",
        ),
    )

    def values(self, candidates: Candidates) -> Floats:
        return cider_d(candidates.ngrams)[:, None]

    def facts(self) -> dict[str, str]:
        return {"df": f"references({len(self.references)})", "sigma": "6"}

    def warnings(self) -> list[str]:
        return frequency_warnings(self)


def frequency_warnings(metric: MeanMetric) -> list[str]:
    """What makes CIDEr on these references hard to compare."""
    references = metric.references
    score = metric.scores[0].name
    found = []
    if len(references) < FEW_IMAGES:
        found.append(
            f"{score} weighs words by how many of the {len(references)} images have them; "
            f"with fewer than {FEW_IMAGES} images it can't be compared with other numbers (with one it is 0)."
        )
    if int(references.per_image.max()) == 1:
        found.append(f"{score} with one reference per image is not comparable with published numbers.")
    repeated = sum(1 for texts in references.captions if len(set(texts)) < len(texts))
    if repeated:
        found.append(f"{repeated} of {len(references)} images have the same reference caption more than once.")
    return found
