"""Qwen2-VL: a chat model that sees images at their native resolution.

Source: Wang et al. 2024, arXiv:2409.12191; the code of Hugging Face transformers. The merger, the bridge, joins 2 × 2
patches into one token of the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import transformers
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLImageProcessorPil

from cutline.families.common import qwen_vl
from cutline.families.common.image_only import ImageOnly, without_video
from cutline.families.common.tiny import with_ends


class Qwen2VLProcessor(ImageOnly, transformers.Qwen2VLProcessor):
    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **options: Any
    ):
        super().__init__(image_processor, tokenizer, chat_template=chat_template, **without_video(options))


class Qwen2VL(qwen_vl.QwenVLFamily):
    model_class = Qwen2VLForConditionalGeneration
    processor_class = Qwen2VLProcessor
    title = "Qwen2-VL"

    @classmethod
    def _tiny(cls, captions: Sequence[str]) -> Self:
        tokenizer = qwen_vl.tiny_tokenizer(captions)
        vision = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2, "patch_size": 8}
        config = Qwen2VLConfig(
            text_config=qwen_vl.tiny_text(tokenizer), vision_config=vision, **qwen_vl.tiny_tokens(tokenizer)
        )
        image_processor = Qwen2VLImageProcessorPil(patch_size=8, min_pixels=48 * 48, max_pixels=64 * 64)
        processor = cls.processor_class(image_processor, tokenizer, chat_template=qwen_vl.TEMPLATE)
        return cls(with_ends(Qwen2VLForConditionalGeneration(config), tokenizer), processor)
