"""SmolVLM and SmolVLM2: SigLIP, pixel shuffle and one linear layer, SmolLM2; images in rows and columns of tiles.

Source: Marafioti et al. 2025, arXiv:2504.05299; the code of Hugging Face transformers.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
import transformers
from torch import Tensor
from transformers import (
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessorPil,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from cutline.core.errors import CheckpointError
from cutline.families.base import Batch
from cutline.families.common.image_only import ImageOnly, without_video
from cutline.families.common.tiles import TiledFamily, padded
from cutline.families.common.tiny import fast_tokenizer, tiny_text, tiny_vision, with_ends
from cutline.families.settings import ImagePolicy
from cutline.families.weights.quantize import Quantization

_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}:{% else %}: {% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


class SmolVLMProcessor(ImageOnly, transformers.SmolVLMProcessor):
    def __init__(
        self,
        image_processor: Any,
        tokenizer: Any,
        image_seq_len: int = 169,
        chat_template: str | None = None,
        **options: Any,
    ):
        super().__init__(
            image_processor,
            tokenizer,
            image_seq_len=image_seq_len,
            chat_template=chat_template,
            **without_video(options),
        )


class SmolVLM(TiledFamily):
    model_class = SmolVLMForConditionalGeneration
    processor_class = SmolVLMProcessor

    @property
    def parts(self) -> Mapping[str, str]:
        return {
            "vision": r"model\.vision_model\.(?:encoder\.layers\.(?P<layer>\d+)\.)?",
            "bridge": r"model\.connector\.",
            "head": r"lm_head\.",
            "text": r"model\.text_model\.(?:layers\.(?P<layer>\d+)\.)?",
        }

    @classmethod
    def open(
        cls, checkpoint: str, dtype: torch.dtype = torch.float32, quantization: Quantization | None = None
    ) -> Self:
        _require_num2words()
        return super().open(checkpoint, dtype, quantization)

    @classmethod
    def _tiny(cls, captions: Sequence[str]) -> Self:
        _require_num2words()
        tokenizer = fast_tokenizer(
            captions,
            bos="<|im_start|>",
            eos="<end_of_utterance>",
            pad="<|im_end|>",
            extra=[f"<row_{row}_col_{column}>" for row in range(1, 3) for column in range(1, 3)],
            image_token="<image>",
            fake_image_token="<fake_token_around_image>",
            end_of_utterance_token="<end_of_utterance>",
            global_image_token="<global-img>",
        )
        token = tokenizer.convert_tokens_to_ids
        config = SmolVLMConfig(
            text_config=tiny_text(tokenizer, model_type="llama"),
            vision_config=tiny_vision(image_size=32, patch_size=8),
            scale_factor=2,
            image_token_id=token("<image>"),
            pad_token_id=tokenizer.pad_token_id,
        )
        image_processor = SmolVLMImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
        processor = cls.processor_class(image_processor, tokenizer, image_seq_len=4, chat_template=_TEMPLATE)
        return cls(with_ends(SmolVLMForConditionalGeneration(config), tokenizer), processor)

    def set_policy(self, policy: ImagePolicy) -> None:
        super().set_policy(policy)
        if policy.tiles:
            self.image_processor.do_image_splitting = policy.tiles > 1
        if policy.tiles and policy.tiles > 1:  # a longest side of k tiles gives at most k × k, and the whole image
            side = self.image_processor.max_image_size["longest_edge"]
            longest = min(self.image_processor.size["longest_edge"], side * math.isqrt(policy.tiles - 1))
            self.image_processor.size = {"longest_edge": longest}

    # ---- text

    def image_texts(self, visual: Batch) -> list[str]:
        rows, columns = visual["tile_grid"].T.tolist()
        known = {"rows": [rows], "cols": [columns]}
        return [self.processor.replace_image_token(known, image) for image in range(len(rows))]

    # ---- images

    def pixels(self, images: Sequence[Any]) -> Batch:
        made = self.process([[image] for image in images], return_row_col_info=True)
        grid = torch.tensor([[row[0], column[0]] for row, column in zip(made["rows"], made["cols"], strict=True)])
        tiles = grid.prod(1) + 1
        counts = tiles.tolist()
        return {
            "pixel_values": torch.cat(
                [piece[:count] for piece, count in zip(made["pixel_values"], counts, strict=True)]
            ),
            "tile_grid": grid,
            "tiles": tiles,
        }

    def pixel_inputs(self, batch: Batch) -> Mapping[str, Tensor]:
        pieces = self.of_rows(batch["pixel_values"], batch, batch["rows"])
        return {"pixel_values": padded(pieces)}

    def encode_images(self, batch: Batch) -> Batch:
        pixels = batch["pixel_values"].to(self.device, self.dtype)
        side = self.config.vision_config.patch_size
        whole = pixels.new_ones((len(pixels), pixels.shape[2] // side, pixels.shape[3] // side), dtype=torch.bool)
        # tiles are squares of one size, so nothing in them is padding
        seen = self.model.model.vision_model(pixel_values=pixels, patch_attention_mask=whole)
        return {"features": seen.last_hidden_state, **self.per_image(batch)}

    def bridge(self, features: Batch, rows: Tensor) -> BaseModelOutputWithPooling:
        tokens = self.model.model.connector(features["features"])
        images = self.of_rows(tokens, features, rows)
        return BaseModelOutputWithPooling(pooler_output=[image.flatten(0, 1) for image in images])


def _require_num2words() -> None:
    if importlib.util.find_spec("num2words") is None:
        raise CheckpointError(
            "SmolVLM's processor needs the package num2words.", 'Install it: pip install "cutline[smolvlm]".'
        )
