"""Gemma 3: SigLIP at 896 px pooled to 256 tokens, Gemma 3 with an image's tokens read in both directions.

Source: Gemma Team 2025, arXiv:2503.19786; the code of Hugging Face transformers. ``[model.image] tiles`` above 1
turns on "pan and scan": long images are also shown in up to tiles - 1 crops.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    GemmaTokenizer,
)

from cutline.families.base import Batch
from cutline.families.common.tiles import TiledFamily
from cutline.families.common.tiny import sentencepiece_bpe, tiny_text, tiny_vision

_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>"
    "{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<start_of_image>"
    "{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


class Gemma3(TiledFamily):
    bidirectional = frozenset({"image"})
    model_class = Gemma3ForConditionalGeneration
    processor_class = Gemma3Processor
    unused = r"model\.vision_tower\.(?:vision_model\.)?head\."

    @classmethod
    def _tiny(cls, captions: Sequence[str]) -> Self:
        vocab, merges = sentencepiece_bpe(captions)
        tokenizer = GemmaTokenizer(
            vocab=vocab,
            merges=merges,
            padding_side="left",
            add_bos_token=True,
            extra_special_tokens={
                "image_token": "<image_soft_token>",
                "boi_token": "<start_of_image>",
                "eoi_token": "<end_of_image>",
            },
        )
        turns = {"additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]}
        tokenizer.add_special_tokens(turns, replace_extra_special_tokens=False)
        token = tokenizer.convert_tokens_to_ids
        vision = tiny_vision(model_type="siglip_vision_model", image_size=56, patch_size=7, vision_use_head=False)
        text = tiny_text(
            tokenizer,
            model_type="gemma3_text",
            head_dim=16,
            query_pre_attn_scalar=16,
            sliding_window=32,
            layer_types=["sliding_attention", "full_attention"],
        )
        config = Gemma3Config(
            vision_config=vision,
            text_config=text,
            mm_tokens_per_image=16,
            boi_token_index=token("<start_of_image>"),
            eoi_token_index=token("<end_of_image>"),
            image_token_index=token("<image_soft_token>"),
        )
        processor = Gemma3Processor(
            image_processor=Gemma3ImageProcessorPil(size={"height": 56, "width": 56}),
            tokenizer=tokenizer,
            chat_template=_TEMPLATE,
            image_seq_length=16,
        )
        model = Gemma3ForConditionalGeneration(config)
        # Hugging Face leaves it at zero; then images have no effect and its gradient is a thousand times too large
        nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.02)
        model.generation_config.eos_token_id = [tokenizer.eos_token_id, token("<end_of_turn>")]
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        return cls(model, processor)

    # ---- text

    def image_texts(self, visual: Batch) -> list[str]:
        crops = [tiles - 1 for tiles in visual["tiles"].tolist()]
        return [self.processor.replace_image_token({"num_crops": crops}, image) for image in range(len(crops))]

    def token_types(self, batch: Batch) -> dict[str, Tensor]:
        """1 for an image's tokens, which see each other in both directions."""
        return {"token_type_ids": (batch["input_ids"] == self.image_token_id).long()}

    # ---- images

    def pixels(self, images: Sequence[Any]) -> Batch:
        options: dict[str, Any] = dict(self.processor.images_kwargs)  # defaults for what a checkpoint leaves out
        if self.policy.tiles:
            options |= {"do_pan_and_scan": self.policy.tiles > 1, "pan_and_scan_max_num_crops": self.policy.tiles - 1}
        processed = self.process([[image] for image in images], **options)
        return {"pixel_values": processed["pixel_values"], "tiles": torch.as_tensor(processed["num_crops"]) + 1}

    def encode_images(self, batch: Batch) -> Batch:
        pixels = batch["pixel_values"].to(self.device, self.dtype)
        return {"features": self.model.model.vision_tower(pixels).last_hidden_state, **self.per_image(batch)}
