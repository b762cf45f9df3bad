"""Families of two towers, one for images and one for texts, whose vectors meet in one space: CLIP and its kin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from cutline.families.base import Batch
from cutline.families.common.retrieval import RetrievalFamily, unit


class TwoTowerFamily(RetrievalFamily):
    """Batches of these families: ``pixel_values`` [N, 3, H, W] or ``features`` [N, C], the vision tower's pooled vector
    before any projection."""

    processor_class: ClassVar[Any]

    def save(self, folder: str | Path) -> None:
        self.processor_class(self.image_processor, self.tokenizer).save_pretrained(folder)
        super().save(folder)

    @property
    def text_tokens(self) -> int:
        return int(self.model.config.text_config.max_position_embeddings)

    def encode_images(self, batch: Batch) -> Batch:
        pixels = batch["pixel_values"].to(self.device, self.dtype)
        return {"features": self.model.vision_model(pixel_values=pixels).pooler_output}

    def project(self, features: Tensor) -> Tensor:
        """Pooled vectors [N, C] → [N, E]; for models that have no such layer, the vectors themselves."""
        return features

    def embed_images(self, batch: Batch) -> Tensor:
        return unit(self.project(self.with_image_features(batch)["features"]))

    def encode_texts(self, texts: Sequence[str]) -> Batch:
        return self.tokenize(texts)

    def embed_texts(self, texts: Batch) -> Tensor:
        return unit(self.model.get_text_features(**texts).pooler_output)
