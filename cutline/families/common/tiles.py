"""Families that cut a large image into tiles, and encode each tile and a thumbnail of the image by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from cutline.core.errors import CheckpointError
from cutline.families.base import Batch
from cutline.families.common.spliced import SplicedFamily
from cutline.families.settings import ImagePolicy

#: Tensors with a row for each tile; all others of the image side have one for each image.
_PER_TILE = ("pixel_values", "pixel_attention_mask", "features")


class TiledFamily(SplicedFamily):
    """Batches of these families: ``pixel_values`` [K, 3, H, W] or ``features`` [K, T, C] of the K tiles of all images
    in order, ``tiles`` [N], and the family's other tensors with a row for each image."""

    def set_policy(self, policy: ImagePolicy) -> None:
        if policy.size or policy.fit != "model" or policy.min_pixels or policy.max_pixels:
            raise CheckpointError(
                f"{self.name()} cuts images into tiles of one size; size, fit and pixel bounds don't apply.",
                "Bound the number of tiles with [model.image] tiles.",
            )
        self.policy = policy

    def per_image(self, batch: Batch) -> Batch:
        """The tensors of a batch with one row for each image."""
        rest = ("input_ids", "attention_mask", "rows", "labels", "weights", "prompt_lengths")
        return {name: value for name, value in batch.items() if name not in (*_PER_TILE, *rest)}

    def split_features(self, features: Batch) -> list[Batch]:
        pieces = torch.split(features["features"], features["tiles"].tolist())
        rest = self.per_image(features)
        return [
            {"features": piece, **{name: value[image] for name, value in rest.items()}}
            for image, piece in enumerate(pieces)
        ]

    def join_features(self, features: Sequence[Batch]) -> Batch:
        rest = {name: torch.stack([one[name] for one in features]) for name in features[0] if name != "features"}
        return {"features": torch.cat([one["features"] for one in features]).to(self.dtype), **rest}

    def of_rows(self, values: Tensor, batch: Batch, rows: Tensor) -> list[Tensor]:
        """Values of all tiles → those of each row's image."""
        pieces = torch.split(values, batch["tiles"].tolist())
        return [pieces[row] for row in rows.tolist()]

    def pixel_inputs(self, batch: Batch) -> Mapping[str, Tensor]:
        return {"pixel_values": torch.cat(self.of_rows(batch["pixel_values"], batch, batch["rows"]))}

    def process(self, images: Sequence[Any], **options: Any) -> Any:
        """Calls the image processor."""
        return self.image_processor(images=list(images), return_tensors="pt", **options)

    def encode_images(self, batch: Batch) -> Batch:
        """``features`` [K, T, C], and the tensors of each image."""
        return {**super().encode_images(batch), **self.per_image(batch)}

    def bridge(self, features: Batch, rows: Tensor) -> BaseModelOutputWithPooling:
        return self.tiles_of_rows(self.model.model.multi_modal_projector(features["features"]), features, rows)

    def tiles_of_rows(self, tokens: Tensor, features: Batch, rows: Tensor) -> BaseModelOutputWithPooling:
        """Projected tokens of all tiles [K, T, D] → those of each row's image, one tile after the other."""
        return BaseModelOutputWithPooling(pooler_output=torch.cat(self.of_rows(tokens, features, rows)))


class GotOcr2Family(TiledFamily):
    """Families with the image processor of GOT-OCR 2, which cuts an image into a grid and adds a thumbnail: InternVL,
    Aya Vision."""

    def image_texts(self, visual: Batch) -> list[str]:
        tiles = visual["tiles"].tolist()
        return [self.processor.replace_image_token({"num_patches": tiles}, image) for image in range(len(tiles))]

    def pixels(self, images: Sequence[Any]) -> Batch:
        limit = self.policy.tiles
        # the processor cuts only if told to; its max_patches doesn't count the thumbnail
        options = {"max_patches": max(1, limit - 1)} if limit else {}
        processed = self.process(images, crop_to_patches=True, **options)
        return {"pixel_values": processed["pixel_values"], "tiles": torch.as_tensor(processed["num_patches"])}


def padded(pieces: Sequence[Tensor]) -> Tensor:
    """Tensors of K₁, K₂, … tiles → [R, most tiles, …], filled with zeros."""
    return torch.nn.utils.rnn.pad_sequence(list(pieces), batch_first=True)
