"""FGD, the Fréchet distance between sentence embeddings of captions and of references. Lower is better.

As caption challenges score it (the "Fréchet GTE distance"): embeddings by GTE-small, each cloud of embeddings taken for
a normal distribution, and the squared Wasserstein distance of the two (Dowson and Landau 1982; Heusel et al. 2017 with
images): |m1 − m2|² + tr(C1 + C2 − 2 (C1 C2)^½), covariances divided by n − 1, all references in one cloud.

It is blind to which caption belongs to which image: swapping all captions changes nothing. It only says whether
captions *as a whole* look like the references. It falls with the number of captions, so compare equal numbers only.

The distance is no mean over images, but near the data it moves like one: an image's value here is the distance plus
the image's influence on it (the derivative with respect to the image's weight). Their mean is the distance exactly,
and the bootstrap over them is the infinitesimal jackknife (Efron 1982); resampling the clouds themselves would be
biased, since drawing with replacement makes them narrower.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, MeanMetric, References
from cutline.metrics.encoders.encoder_settings import EncoderSettings, check_checkpoint

if TYPE_CHECKING:
    from cutline.metrics.encoders.encoders import SentenceEncoder

#: Below this many images a covariance of GTE's 384 dimensions is mostly chance.
FEW_IMAGES = 1000


class FgdSettings(EncoderSettings):
    model: str = Field(
        "thenlper/gte-small", description="text encoder whose token vectors are averaged: a folder or a name on the hub"
    )


class Fgd(MeanMetric):
    settings_type = FgdSettings
    scores = (
        ScoreInfo(
            "fgd",
            "FGD",
            "Fréchet distance between the sentence embeddings of all captions and of all references.",
            higher_is_better=False,
        ),
    )
    uses_tokens = False

    def __init__(self, references: References, settings: FgdSettings | None = None):
        super().__init__(references)
        self._settings = settings or FgdSettings()

    @classmethod
    def check(cls, settings: FgdSettings) -> None:
        check_checkpoint("fgd", settings)

    @cached_property
    def _encoder(self) -> SentenceEncoder:
        from cutline.metrics.encoders import encoders

        return encoders.sentences("fgd", self._settings)

    @cached_property
    def _theirs(self) -> Cloud:
        captions = [text for texts in self.references.captions for text in texts]
        return Cloud(self._encoder.texts(captions, self.bars).astype(np.float64))

    def values(self, candidates: Candidates) -> Floats:
        mine = Cloud(self._encoder.texts(candidates.captions, self.bars).astype(np.float64))
        distance, influence, of_reference = frechet(mine, self._theirs)
        many = self.references.per_image
        by_image = np.add.reduceat(of_reference, np.cumsum(many) - many)
        value: Floats = distance + influence + by_image * (len(many) / many.sum())
        return value[:, None]

    def facts(self) -> dict[str, str]:
        return {**self._encoder.facts, "pool": "mean", "unit": "yes", "blind_to": "which_image"}

    def warnings(self) -> list[str]:
        found = ["fgd ignores which caption belongs to which image; don't judge captions by it alone."]
        if len(self.references) < FEW_IMAGES:
            found.append(
                f"fgd of {len(self.references)} images is mostly noise; compare it only for equal numbers of them."
            )
        return found


class Cloud:
    """Vectors float64 [n, D] with their mean [D] and covariance [D, D]."""

    def __init__(self, vectors: Floats):
        self.vectors = vectors
        self.mean: Floats = vectors.mean(axis=0)
        centred = vectors - self.mean
        self.covariance: Floats = centred.T @ centred / max(1, len(vectors) - 1)

    @cached_property
    def root(self) -> Floats:
        """The covariance's square root [D, D]."""
        return _power(self.covariance, 0.5)


def frechet(a: Cloud, b: Cloud) -> tuple[float, Floats, Floats]:
    """The Fréchet distance, and the influence on it of each vector of a [n] and of b [m], both with mean 0."""
    middle = b.root @ a.covariance @ b.root
    apart = a.mean - b.mean
    overlap = np.sqrt(np.maximum(0.0, np.linalg.eigvalsh(middle))).sum()
    distance = float(apart @ apart + np.trace(a.covariance) + np.trace(b.covariance) - 2 * overlap)
    to_b = b.root @ _power(middle, -0.5) @ b.root  # the optimal transport from a to b, a linear map
    to_a = a.root @ _power(a.root @ b.covariance @ a.root, -0.5) @ a.root
    return distance, _influence(a, apart, to_b), _influence(b, -apart, to_a)


def _influence(cloud: Cloud, apart: Floats, transport: Floats) -> Floats:
    """d distance / d weight of each vector: 2 (m − m')·(x − m) + (x − m)ᵀ(1 − T)(x − m), less its mean."""
    centred = cloud.vectors - cloud.mean
    bend = np.eye(len(transport)) - transport
    value: Floats = 2 * centred @ apart + np.einsum("nd,de,ne->n", centred, bend, centred, optimize=True)
    value -= value.mean()
    return value


def _power(matrix: Floats, exponent: float) -> Floats:
    """A power of a symmetric matrix without negative eigenvalues; those that are 0 stay 0."""
    values, vectors = np.linalg.eigh(matrix)
    kept = values > values[-1] * len(matrix) * np.finfo(np.float64).eps
    powers = np.zeros_like(values)
    powers[kept] = values[kept] ** exponent
    found: Floats = (vectors * powers) @ vectors.T
    return found
