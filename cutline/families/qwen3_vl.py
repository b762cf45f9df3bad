"""Qwen3-VL: a chat model that sees images at their native resolution, with features of several depths.

Source: Bai et al. 2025, arXiv:2511.21631; the code of Hugging Face transformers. Beside the merger of the last layer
there is one for each of a few earlier layers, whose tokens are added to the first layers of the text (DeepStack); all
mergers are the bridge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
import transformers
from torch import Tensor
from transformers import Qwen2VLImageProcessorPil, Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from cutline.families.base import Batch
from cutline.families.common import qwen_vl
from cutline.families.common.image_only import ImageOnly, without_video
from cutline.families.common.tiny import with_ends


class Qwen3VLProcessor(ImageOnly, transformers.Qwen3VLProcessor):
    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **options: Any
    ):
        super().__init__(image_processor, tokenizer, chat_template=chat_template, **without_video(options))


class Qwen3VL(qwen_vl.QwenVLFamily):
    model_class = Qwen3VLForConditionalGeneration
    processor_class = Qwen3VLProcessor
    title = "Qwen3-VL"

    @classmethod
    def _tiny(cls, captions: Sequence[str]) -> Self:
        tokenizer = qwen_vl.tiny_tokenizer(captions)
        text = qwen_vl.tiny_text(tokenizer) | {"head_dim": 16}
        text["rope_parameters"] = text["rope_parameters"] | {"mrope_interleaved": True}
        vision = {
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 64,
            "patch_size": 8,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        }
        config = Qwen3VLConfig(text_config=text, vision_config=vision, **qwen_vl.tiny_tokens(tokenizer))
        image_processor = Qwen2VLImageProcessorPil(patch_size=8, min_pixels=48 * 48, max_pixels=64 * 64)
        processor = cls.processor_class(image_processor, tokenizer, chat_template=qwen_vl.TEMPLATE)
        return cls(with_ends(Qwen3VLForConditionalGeneration(config), tokenizer), processor)

    def encode_images(self, batch: Batch) -> Batch:
        """``features`` [patches of all images, layers, C]: the last layer's, then those of the depths."""
        visual, kept = self.model.model.visual, []

        def keep(module: Any, inputs: Any, output: Tensor) -> None:
            kept.append(output)

        hooks = [visual.blocks[layer].register_forward_hook(keep) for layer in visual.deepstack_visual_indexes]
        try:
            seen = super().encode_images(batch)
        finally:
            for hook in hooks:
                hook.remove()
        return {**seen, "features": torch.stack([seen["features"], *kept], 1)}

    def bridge(self, features: Batch, rows: Tensor) -> BaseModelOutputWithDeepstackFeatures:
        visual, layers = self.model.model.visual, features["features"].unbind(1)
        mergers = [visual.merger, *visual.deepstack_merger_list]
        merged = [
            self.by_image(merger(layer.contiguous()), features) for merger, layer in zip(mergers, layers, strict=True)
        ]
        last, *deep = [[images[row] for row in rows.tolist()] for images in merged]
        return BaseModelOutputWithDeepstackFeatures(pooler_output=last, deepstack_features=deep)
