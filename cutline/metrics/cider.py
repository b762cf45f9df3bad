"""CIDEr-D, which coco-caption prints as "CIDEr".

Vedantam, Zitnick and Parikh 2015; pycocoevalcap 1.2, ``cider/cider_scorer.py``: tf-idf vectors of n-grams of order
1…4, document frequencies from the references being scored against, clipped counts, a Gaussian penalty on the difference
in length (sigma 6, lengths counted in bigrams), times 10.
"""

from __future__ import annotations

import numpy as np

from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, MeanMetric

_SIGMA = 6.0
#: Document frequencies of fewer images than this say little.
FEW_IMAGES = 100


def per_image(candidates: Candidates, by_caption: Floats) -> Floats:
    """float64 [n, 1]: mean over an image's references and the orders, times 10."""
    index = candidates.references.ngrams
    sums = np.bincount(index.image_of, by_caption, minlength=index.images)
    value: Floats = sums / index.ORDERS / index.per_image * 10.0
    return value[:, None]


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
        ngrams, index = candidates.ngrams, self.references.ngrams
        bigrams = np.maximum(0, ngrams.lengths - 1)[index.image_of] - np.maximum(0, index.lengths - 1)
        penalty = np.e ** (-(bigrams.astype(np.float64) ** 2) / (2 * _SIGMA**2))
        return per_image(candidates, ngrams.overlap.clipped * penalty)

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
