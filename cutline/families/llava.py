"""LLaVA 1.5 and its like: CLIP, a two-layer MLP, Llama.

Source: Liu et al. 2023, arXiv:2310.03744; the code of Hugging Face transformers. Features come from the layer
before the tower's last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor
from transformers import (
    CLIPImageProcessorPil,
    LlamaTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from cutline.families.base import Batch
from cutline.families.common.spliced import SplicedFamily
from cutline.families.common.tiny import sentencepiece_bpe, tiny_text, tiny_vision
from cutline.families.common.tower import unused_after

_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | upper }}: "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


class Llava(SplicedFamily):
    model_class = LlavaForConditionalGeneration
    processor_class = LlavaProcessor
    unused = r"model\.vision_tower\.(?:vision_model\.)?(?:post_layernorm|head)\."

    def __init__(self, model: Any, processor: Any, prompt: str | None = None):
        super().__init__(model, processor, prompt)
        self.unused = unused_after(self.config.vision_config, self.config.vision_feature_layer)

    @classmethod
    def _tiny(cls, captions: Sequence[str]) -> Self:
        vocab, merges = sentencepiece_bpe(captions, markers=("<pad>", "</s>", "<s>", "<unk>"))
        tokenizer = LlamaTokenizer(
            vocab=vocab,
            merges=merges,
            pad_token="<pad>",
            add_bos_token=True,
            padding_side="left",
            extra_special_tokens={"image_token": "<image>"},
        )
        layers = {"model_type": "clip_vision_model", "num_hidden_layers": 3}
        vision = tiny_vision(**layers, image_size=56, patch_size=14, projection_dim=32)
        config = LlavaConfig(
            vision_config=vision,
            text_config=tiny_text(tokenizer, model_type="llama"),
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            image_seq_length=16,
        )
        processor = LlavaProcessor(
            image_processor=CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}),
            tokenizer=tokenizer,
            patch_size=14,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template=_TEMPLATE,
        )
        return cls(LlavaForConditionalGeneration(config), processor)

    def image_texts(self, visual: Batch) -> list[str]:
        if "features" in visual:
            images, tokens = visual["features"].shape[:2]
            return [self.placeholder * tokens] * images
        return [self.processor.replace_image_token(visual, image) for image in range(len(visual["pixel_values"]))]

    # ---- images

    def bridge(self, features: Batch, rows: Tensor) -> BaseModelOutputWithPooling:
        projected = self.model.model.multi_modal_projector(features["features"])
        return BaseModelOutputWithPooling(pooler_output=[projected[row] for row in rows.tolist()])
