"""Qwen2.5-VL: a chat model that sees images at their native resolution.

Source: Bai et al. 2025, arXiv:2502.13923; the code of Hugging Face transformers. The vision tower works on patches in
window order; its merger, the bridge, joins 2 × 2 patches into one token of the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
import transformers
from torch import Tensor
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)
from transformers.vision_utils import get_vision_window_index

from cutline.families.base import Batch
from cutline.families.common import qwen_vl
from cutline.families.common.image_only import ImageOnly, without_video
from cutline.families.common.tiny import with_ends


class Qwen2_5_VLProcessor(ImageOnly, transformers.Qwen2_5_VLProcessor):
    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **options: Any
    ):
        super().__init__(image_processor, tokenizer, chat_template=chat_template, **without_video(options))


class Qwen25VL(qwen_vl.QwenVLFamily):
    model_class = Qwen2_5_VLForConditionalGeneration
    processor_class = Qwen2_5_VLProcessor
    title = "Qwen2.5-VL"

    @classmethod
    def _tiny(cls, captions: Sequence[str]) -> Self:
        tokenizer = qwen_vl.tiny_tokenizer(captions)
        vision = {
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 64,
            "patch_size": 8,
            "window_size": 32,
            "fullatt_block_indexes": [1],
        }
        config = Qwen2_5_VLConfig(
            text_config=qwen_vl.tiny_text(tokenizer), vision_config=vision, **qwen_vl.tiny_tokens(tokenizer)
        )
        image_processor = Qwen2VLImageProcessorPil(patch_size=8, min_pixels=48 * 48, max_pixels=64 * 64)
        processor = cls.processor_class(image_processor, tokenizer, chat_template=qwen_vl.TEMPLATE)
        return cls(with_ends(Qwen2_5_VLForConditionalGeneration(config), tokenizer), processor)

    def merge(self, features: Batch) -> list[Tensor]:
        visual, grid = self.model.model.visual, features["image_grid_thw"]
        order, _ = get_vision_window_index(grid, visual.spatial_merge_size, visual.window_size, visual.patch_size)
        merged = visual.merger(features["features"])[torch.argsort(order).to(features["features"].device)]
        return self.by_image(merged, features)
