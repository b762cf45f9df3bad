"""Families of two towers, one for images and one for texts, whose vectors meet in one space: CLIP and its kin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from transformers import AutoImageProcessor, AutoTokenizer

from cutline.core.errors import CheckpointError
from cutline.families.base import Batch
from cutline.families.common.retrieval import RetrievalFamily, unit
from cutline.families.weights.quantize import Quantization


class TwoTowerFamily(RetrievalFamily):
    """Batches of these families: ``pixel_values`` [N, 3, H, W] or ``features`` [N, C], the vision tower's pooled vector
    before any projection."""

    architecture: ClassVar[Any]
    processor_class: ClassVar[Any]

    @classmethod
    def open(
        cls, checkpoint: str, dtype: torch.dtype = torch.float32, quantization: Quantization | None = None
    ) -> Self:
        model = cls.from_pretrained(cls.architecture, checkpoint, dtype, quantization)
        image_processor = AutoImageProcessor.from_pretrained(checkpoint, backend="pil")
        try:
            tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        except ImportError as error:
            raise CheckpointError(
                f"The tokenizer of {checkpoint} needs a package that isn't here: {str(error).strip().splitlines()[0]}",
                "Install it: pip install sentencepiece protobuf",
            ) from error
        return cls(model, image_processor, tokenizer)

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
