"""Qwen2.5-VL: a chat model that sees images at their native resolution.

Source: Bai et al. 2025, arXiv:2502.13923; the code of Hugging Face transformers. The vision tower works on patches in
window order; its merger, the bridge, joins 2 × 2 patches into one token of the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessorPil,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.vision_utils import get_vision_window_index

from cutline.errors import CheckpointError
from cutline.families.base import Batch
from cutline.families.common.chat import ChatFamily
from cutline.families.common.image_only import image_only
from cutline.families.common.tiny import byte_level_bpe
from cutline.families.settings import ImagePolicy

_SPECIAL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>",
            "<|video_pad|>")  # fmt: skip

# What the miniature says around an image and a question; real checkpoints bring their own template.
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Qwen25VL(ChatFamily):
    def __init__(self, model: Any, processor: Any, prompt: str | None = None):
        super().__init__(model, processor.image_processor, processor.tokenizer, prompt)
        self.processor = processor

    @property
    def parts(self) -> Mapping[str, str]:
        return {
            "bridge": r"model\.visual\.merger\.",
            "vision": r"model\.visual\.(?:blocks\.(?P<layer>\d+)\.)?",
            "head": r"lm_head\.",
            "text": r"model\.language_model\.(?:layers\.(?P<layer>\d+)\.)?",
        }

    @classmethod
    def load(cls, checkpoint: str, dtype: torch.dtype = torch.float32) -> Self:
        model = cls.load_whole(Qwen2_5_VLForConditionalGeneration, checkpoint, dtype)
        processor = image_only(Qwen2_5_VLProcessor).from_pretrained(checkpoint, backend="pil")
        return cls(model, processor)

    @classmethod
    def tiny(cls, captions: Sequence[str] = (), seed: int = 0) -> Self:
        torch.manual_seed(seed)
        vocab, merges = byte_level_bpe(captions)
        tokenizer = Qwen2Tokenizer(
            vocab=vocab, merges=merges, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
        )
        tokenizer.add_special_tokens({"additional_special_tokens": list(_SPECIAL)})
        token = tokenizer.convert_tokens_to_ids
        text = {
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            # half of the head's width, shared out over time, height and width
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
            "bos_token_id": token("<|im_start|>"),
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
            "tie_word_embeddings": True,
        }
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
            text_config=text,
            vision_config=vision,
            tie_word_embeddings=True,
            image_token_id=token("<|image_pad|>"),
            video_token_id=token("<|video_pad|>"),
            vision_start_token_id=token("<|vision_start|>"),
            vision_end_token_id=token("<|vision_end|>"),
        )
        image_processor = Qwen2VLImageProcessorPil(patch_size=8, min_pixels=48 * 48, max_pixels=64 * 64)
        processor = image_only(Qwen2_5_VLProcessor)(image_processor, tokenizer, chat_template=_TEMPLATE)
        model = Qwen2_5_VLForConditionalGeneration(config)
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        return cls(model, processor)

    def save(self, folder: Any) -> None:
        self.processor.save_pretrained(folder)
        super().save(folder)

    def set_policy(self, policy: ImagePolicy) -> None:
        if policy.size or policy.fit != "model":
            raise CheckpointError(
                "Qwen2.5-VL sees images at their native resolution; size and fit don't apply.",
                "Bound the pixels with [model.image] min_pixels and max_pixels.",
            )
        size = dict(self.image_processor.size)
        self.image_processor.size = {
            "shortest_edge": policy.min_pixels or size["shortest_edge"],
            "longest_edge": policy.max_pixels or size["longest_edge"],
        }
        self.policy = policy

    # ---- text

    @property
    def image_token_id(self) -> int:
        return int(self.model.config.image_token_id)

    def render(self, prompt: str) -> str:
        turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}
        return str(self.processor.apply_chat_template([turn], tokenize=False, add_generation_prompt=True))

    def image_tokens(self, visual: Batch) -> list[int]:
        merged: int = self.image_processor.merge_size**2
        return [int(count) for count in visual["image_grid_thw"].prod(1) // merged]

    # ---- images

    def pixels(self, images: Sequence[Any]) -> Batch:
        made = self.image_processor(images=list(images), return_tensors="pt")
        return {"pixel_values": made["pixel_values"], "image_grid_thw": made["image_grid_thw"]}

    def see(self, batch: Batch) -> Batch:
        """``features`` [patches of all images, C] in window order, and ``image_grid_thw`` [N, 3]."""
        pixels = batch["pixel_values"].to(self.device, self.dtype)
        grid = batch["image_grid_thw"].to(self.device)
        # the tower computes its merger too; that is one small layer more, and unused where features are cached
        return {"features": self.model.model.visual(pixels, grid_thw=grid).last_hidden_state, "image_grid_thw": grid}

    def split_features(self, features: Batch) -> list[Batch]:
        grids = features["image_grid_thw"]
        pieces = torch.split(features["features"], grids.prod(1).tolist())
        return [{"features": piece, "image_grid_thw": grid} for piece, grid in zip(pieces, grids, strict=True)]

    def join_features(self, features: Sequence[Batch]) -> Batch:
        return {
            "features": torch.cat([one["features"] for one in features]).to(self.dtype),
            "image_grid_thw": torch.stack([one["image_grid_thw"] for one in features]),
        }

    def _merged(self, features: Batch, rows: Tensor) -> BaseModelOutputWithPooling:
        """The bridge: features → one [tokens, D] tensor for each row's image."""
        visual, grid = self.model.model.visual, features["image_grid_thw"]
        order, _ = get_vision_window_index(grid, visual.spatial_merge_size, visual.window_size, visual.patch_size)
        merged = visual.merger(features["features"])[torch.argsort(order).to(features["features"].device)]
        images = torch.split(merged, (grid.prod(1) // visual.spatial_merge_size**2).tolist())
        return BaseModelOutputWithPooling(pooler_output=[images[row] for row in rows.tolist()])

    # ---- language model

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        """What forward and generate both take."""
        features = self.looked_at(batch)
        ids = batch["input_ids"]
        return {
            "input_ids": ids,
            "attention_mask": batch["attention_mask"],
            "mm_token_type_ids": (ids == self.image_token_id).int(),
            "image_grid_thw": features["image_grid_thw"][batch["rows"]],
            "mm_encoder_outputs": {"image": self._merged(features, batch["rows"])},
        }

    def read(self, batch: Batch) -> Tensor:
        return self.model.model(**self._inputs(batch), use_cache=False).last_hidden_state  # type: ignore[no-any-return]

    def generation_inputs(self, batch: Batch) -> dict[str, object]:
        return self._inputs(batch)

    def head(self, hidden: Tensor) -> Tensor:
        return self.model.lm_head(hidden)  # type: ignore[no-any-return]
