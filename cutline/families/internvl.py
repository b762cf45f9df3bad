"""InternVL 2.5, 3 and 3.5 in Hugging Face's own form (checkpoints whose names end in -hf).

Source: Zhu et al. 2025, arXiv:2504.10479; the code of Hugging Face transformers. Large images are cut into tiles of
448 px; four patches are joined into one token (pixel shuffle) before the projector, the bridge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import transformers
from torch import Tensor
from transformers import (
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from cutline.families.base import Batch
from cutline.families.common.image_only import ImageOnly, without_video
from cutline.families.common.tiles import GotOcr2Family
from cutline.families.common.tiny import qwen2_tokenizer, tiny_text, tiny_vision, with_ends

_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<IMG_CONTEXT>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class InternVLProcessor(ImageOnly, transformers.InternVLProcessor):
    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        image_seq_length: int = 256,
        chat_template: str | None = None,
        **options: Any,
    ):
        super().__init__(
            image_processor,
            tokenizer,
            image_seq_length=image_seq_length,
            chat_template=chat_template,
            **without_video(options),
        )


class InternVL(GotOcr2Family):
    model_class = InternVLForConditionalGeneration
    processor_class = InternVLProcessor

    @property
    def parts(self) -> Mapping[str, str]:
        return {**super().parts, "vision": r"model\.vision_tower\.(?:encoder\.layer\.(?P<layer>\d+)\.)?"}

    @classmethod
    def _tiny(cls, captions: Sequence[str]) -> Self:
        tokenizer = qwen2_tokenizer(
            captions,
            start_image_token="<img>",
            end_image_token="</img>",
            context_image_token="<IMG_CONTEXT>",
            video_token="<video>",
        )
        token = tokenizer.convert_tokens_to_ids
        config = InternVLConfig(
            vision_config=tiny_vision(image_size=[32, 32], patch_size=[8, 8]),
            text_config=tiny_text(tokenizer, model_type="qwen2", bos_token_id=None),
            image_token_id=token("<IMG_CONTEXT>"),
            image_seq_length=4,
            downsample_ratio=0.5,
        )
        image_processor = GotOcr2ImageProcessorPil(size={"height": 32, "width": 32}, max_patches=4)
        processor = cls.processor_class(image_processor, tokenizer, image_seq_length=4, chat_template=_TEMPLATE)
        return cls(with_ends(InternVLForConditionalGeneration(config), tokenizer), processor)

    def encode_images(self, batch: Batch) -> Batch:
        """``features`` [K, T, C], one for each patch; the tower's last hidden state is normalised, others aren't."""
        if self.config.vision_feature_layer != -1:
            return super().encode_images(batch)
        states = self.model.model.vision_tower(batch["pixel_values"].to(self.device, self.dtype)).last_hidden_state
        first = 1 if self.config.vision_feature_select_strategy == "default" else 0  # the class token
        return {"features": states[:, first:], **self.per_image(batch)}

    def bridge(self, features: Batch, rows: Tensor) -> BaseModelOutputWithPooling:
        patches = features["features"]
        count, length, _ = patches.shape
        side = int(length**0.5)
        model = self.model.model
        joined = model.pixel_shuffle(
            patches.reshape(count, side, side, -1), scale_factor=self.model.config.downsample_ratio
        )
        tokens = model.multi_modal_projector(joined.reshape(count, -1, joined.shape[-1]))
        return self.tiles_of_rows(tokens, features, rows)
