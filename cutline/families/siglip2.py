"""SigLIP 2 at native aspect ratio (NaFlex): an image is as many patches as its shape asks for, up to a limit.

Source: Tschannen et al. 2025, arXiv:2502.14786; the code of Hugging Face transformers. The checkpoints of SigLIP 2 at a
fixed resolution say ``siglip`` in their config.json, and open as that family.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from PIL.Image import Image
from transformers import Siglip2Config, Siglip2ImageProcessorPil, Siglip2Model, Siglip2Processor

from cutline.core.errors import CheckpointError
from cutline.families.base import Batch
from cutline.families.common.siglip import TINY_SIZE, SiglipFamily, tiny_text, tiny_tokenizer
from cutline.families.settings import ImagePolicy


class Siglip2(SiglipFamily):
    architecture = Siglip2Model
    processor_class = Siglip2Processor

    @classmethod
    def _tiny(cls, captions: Sequence[str]) -> Self:
        tokenizer = tiny_tokenizer(captions)
        vision = {"num_patches": 16, "patch_size": 8}
        model = Siglip2Model(
            Siglip2Config(text_config=TINY_SIZE | tiny_text(tokenizer), vision_config=TINY_SIZE | vision)
        )
        return cls(model, Siglip2ImageProcessorPil(patch_size=8, max_num_patches=36), tokenizer)

    def set_policy(self, policy: ImagePolicy) -> None:
        if policy.size or policy.min_pixels or policy.fit != "model":
            raise CheckpointError(
                "SigLIP 2 NaFlex sees images in their own shape; size, fit and min_pixels don't apply.",
                "Bound the pixels with [model.image] max_pixels.",
            )
        if policy.max_pixels:
            self.image_processor.max_num_patches = policy.max_pixels // self.image_processor.patch_size**2
        self.policy = policy

    def pixels(self, images: Sequence[Image]) -> Batch:
        """``pixel_values`` [N, P, 3 · side²] of up to P patches, ``pixel_attention_mask`` [N, P], ``spatial_shapes``
        [N, 2]: rows and columns of patches."""
        made = self.image_processor(images=list(images), return_tensors="pt")
        return {name: made[name] for name in ("pixel_values", "pixel_attention_mask", "spatial_shapes")}

    def encode_images(self, batch: Batch) -> Batch:
        seen = self.model.vision_model(
            pixel_values=batch["pixel_values"].to(self.device, self.dtype),
            pixel_attention_mask=batch["pixel_attention_mask"].to(self.device),
            spatial_shapes=batch["spatial_shapes"].to(self.device),
        )
        return {"features": seen.pooler_output}
