"""Families that cut a large image into tiles and see each tile, and the whole image in small, by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cutline.core.errors import CheckpointError
from cutline.families.base import Batch
from cutline.families.common.spliced import SplicedFamily
from cutline.families.settings import ImagePolicy

#: What has a row for each tile; everything else of the image side has one for each image.
_PER_TILE = ("pixel_values", "pixel_attention_mask", "features")


class TiledFamily(SplicedFamily):
    """Batches of these families: ``pixel_values`` [K, 3, H, W] or ``features`` [K, T, C] of the K tiles of all images
    in order, ``tiles`` [N], and what else the family keeps of each image."""

    def set_policy(self, policy: ImagePolicy) -> None:
        if policy.size or policy.fit != "model" or policy.min_pixels or policy.max_pixels:
            raise CheckpointError(
                f"{self.name()} cuts images into tiles of one size; size, fit and pixel bounds don't apply.",
                "Bound the number of tiles with [model.image] tiles.",
            )
        self.policy = policy

    def per_image(self, batch: Batch) -> Batch:
        """What a batch holds of each image beside its tiles."""
        rest = ("input_ids", "attention_mask", "rows", "labels", "weights", "prompt_lengths")
        return {name: value for name, value in batch.items() if name not in (*_PER_TILE, *rest)}

    def split_features(self, features: Batch) -> list[Batch]:
        pieces = torch.split(features["features"], features["tiles"].tolist())
        rest = self.per_image(features)
        return [
            {"features": piece, **{name: value[place] for name, value in rest.items()}}
            for place, piece in enumerate(pieces)
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

    def process(self, images: Sequence[Any], **how: Any) -> Any:
        return self.image_processor(images=list(images), return_tensors="pt", **how)


def padded(pieces: Sequence[Tensor]) -> Tensor:
    """Tensors of K₁, K₂, … tiles → [R, most tiles, …], filled with zeros."""
    return torch.nn.utils.rnn.pad_sequence(list(pieces), batch_first=True)
