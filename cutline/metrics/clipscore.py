"""CLIPScore and RefCLIPScore: how close a caption is to its image, and also to the references, in CLIP's space.

Hessel et al. 2021, "CLIPScore: A Reference-free Evaluation Metric for Image Captioning": CLIP ViT-B/32, captions after
"A photo depicts", 2.5 · max(cosine, 0); RefCLIPScore is the harmonic mean of that and of the best cosine with a
reference (at least 0). Scores of other checkpoints or precisions can't be compared: both stand in the signature. A
model that was trained by CLIP's own likes, or whose captions CLIP chose, is flattered.

An image without a caption scores 0. Captions are read as they are, not tokenised for BLEU; CLIP reads 77 tokens.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from cutline.core.errors import ScoreError
from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, MeanMetric, References, ratio, some
from cutline.metrics.encoders.encoder_settings import EncoderSettings, check_checkpoint

if TYPE_CHECKING:
    from cutline.metrics.encoders.encoders import ClipEncoder, Vectors

_WEIGHT = 2.5
_PREFIX = "A photo depicts "


class ClipScoreSettings(EncoderSettings):
    model: str = Field(
        "openai/clip-vit-base-patch32", description="CLIP or SigLIP checkpoint, a folder or a name on the hub"
    )


class ClipScore(MeanMetric):
    """Needs the images of the references."""

    settings_type = ClipScoreSettings
    scores = (
        ScoreInfo(
            "clipscore",
            "CLIPScore",
            "Similarity of caption and image in the space of a CLIP model; uses no references.",
        ),
        ScoreInfo(
            "refclipscore",
            "RefCLIPScore",
            "Harmonic mean of CLIPScore and the similarity to the closest reference in the same space.",
        ),
    )
    uses_tokens = False

    def __init__(self, references: References, settings: ClipScoreSettings | None = None):
        super().__init__(references)
        self._settings = settings or ClipScoreSettings()
        missing = [name for name in references.ids if name not in references.images]
        if missing:
            raise ScoreError(
                f"clipscore needs the images, and {len(missing)} of {len(references)} were not found: {some(missing)}.",
                "Score against a prepared dataset, or give the folder of the images (--images FOLDER).",
            )

    @classmethod
    def check(cls, settings: ClipScoreSettings) -> None:
        check_checkpoint("clipscore", settings)

    @cached_property
    def _encoder(self) -> ClipEncoder:
        from cutline.metrics.encoders import encoders

        return encoders.clip("clipscore", self._settings)

    @cached_property
    def _seen(self) -> Vectors:
        """The images, [n, D]."""
        paths = [str(self.references.images[name]) for name in self.references.ids]
        return self._encoder.images(paths, self.bars)

    @cached_property
    def _said(self) -> Vectors:
        """All references, image by image, [R, D]."""
        captions = [_PREFIX + text for texts in self.references.captions for text in texts]
        return self._encoder.texts(captions, self.bars)

    def values(self, candidates: Candidates) -> Floats:
        captions = self._encoder.texts([_PREFIX + caption for caption in candidates.captions], self.bars)
        filled = np.array([bool(caption.strip()) for caption in candidates.captions])
        image = _WEIGHT * np.maximum(0.0, (captions * self._seen).sum(axis=1, dtype=np.float64)) * filled
        many = self.references.per_image
        start = np.cumsum(many) - many
        cosine = (np.repeat(captions, many, axis=0) * self._said).sum(axis=1, dtype=np.float64)
        text = np.maximum(0.0, np.maximum.reduceat(cosine, start)) * filled
        both = np.nan_to_num(ratio(2 * image * text, image + text))
        return np.stack([image, both], axis=1)

    def facts(self) -> dict[str, str]:
        return {**self._encoder.facts, "prefix": _PREFIX.strip(), "w": str(_WEIGHT), "refs_by": "best"}
