"""What Qwen2-VL, Qwen2.5-VL and Qwen3-VL share: images at their native resolution, merged 2 × 2 patches a token,
positions of three axes, and the ChatML prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import Qwen2Tokenizer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from cutline.core.errors import CheckpointError
from cutline.families.base import Batch
from cutline.families.common import tiny
from cutline.families.common.spliced import SplicedFamily
from cutline.families.settings import ImagePolicy

_SPECIAL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>",
            "<|video_pad|>")  # fmt: skip

#: What the miniatures say around an image and a question; real checkpoints bring their own template.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class QwenVLFamily(SplicedFamily):
    """Features of these families: ``features`` [patches of all images, C] or [patches, layers, C], and
    ``image_grid_thw`` [N, 3]."""

    #: The model as people write it.
    title: ClassVar[str]

    @property
    def parts(self) -> Mapping[str, str]:
        return {
            "bridge": r"model\.visual\.(?:merger|deepstack_merger_list)\.",
            "vision": r"model\.visual\.(?:blocks\.(?P<layer>\d+)\.)?",
            "head": r"lm_head\.",
            "text": r"model\.language_model\.(?:layers\.(?P<layer>\d+)\.)?",
        }

    def set_policy(self, policy: ImagePolicy) -> None:
        if policy.size or policy.tiles or policy.fit != "model":
            raise CheckpointError(
                f"{self.title} sees images at their native resolution; size, fit and tiles don't apply.",
                "Bound the pixels with [model.image] min_pixels and max_pixels.",
            )
        size = dict(self.image_processor.size)
        self.image_processor.size = {
            "shortest_edge": policy.min_pixels or size["shortest_edge"],
            "longest_edge": policy.max_pixels or size["longest_edge"],
        }
        self.policy = policy

    # ---- text

    def image_texts(self, visual: Batch) -> list[str]:
        merged: int = self.image_processor.merge_size**2
        return [self.placeholder * (int(patches) // merged) for patches in visual["image_grid_thw"].prod(1)]

    def token_types(self, batch: Batch) -> dict[str, Tensor]:
        return {"mm_token_type_ids": (batch["input_ids"] == self.image_token_id).int()}

    # ---- images

    def pixels(self, images: Sequence[Any]) -> Batch:
        made = self.image_processor(images=list(images), return_tensors="pt")
        return {"pixel_values": made["pixel_values"], "image_grid_thw": made["image_grid_thw"]}

    def encode_images(self, batch: Batch) -> Batch:
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

    def pixel_inputs(self, batch: Batch) -> Mapping[str, Tensor]:
        pieces = torch.split(batch["pixel_values"], batch["image_grid_thw"].prod(1).tolist())
        rows = batch["rows"]
        return {
            "pixel_values": torch.cat([pieces[row] for row in rows.tolist()]),
            "image_grid_thw": batch["image_grid_thw"][rows],
        }

    def merge(self, features: Batch) -> list[Tensor]:
        """The bridge for each image: [tokens, D]."""
        return self.by_image(self.model.model.visual.merger(features["features"]), features)

    def by_image(self, merged: Tensor, features: Batch) -> list[Tensor]:
        """[tokens of all images, D] → one tensor an image."""
        counts = features["image_grid_thw"].prod(1) // self.model.model.visual.spatial_merge_size**2
        return list(torch.split(merged, counts.tolist()))

    def bridge(self, features: Batch, rows: Tensor) -> BaseModelOutputWithPooling:
        images = self.merge(features)
        return BaseModelOutputWithPooling(pooler_output=[images[row] for row in rows.tolist()])

    # ---- language model

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        return {**super()._inputs(batch), "image_grid_thw": batch["image_grid_thw"][batch["rows"]]}


def tiny_tokenizer(captions: Sequence[str]) -> Qwen2Tokenizer:
    """The real tokenizer class on a vocabulary of a few hundred tokens."""
    vocab, merges = tiny.byte_level_bpe(captions)
    tokenizer = Qwen2Tokenizer(
        vocab=vocab, merges=merges, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(_SPECIAL)})
    return tokenizer


def tiny_text(tokenizer: Qwen2Tokenizer) -> dict[str, Any]:
    """Two layers of the text part."""
    token = tokenizer.convert_tokens_to_ids
    return tiny.tiny_text(
        tokenizer,
        # half of the head's width, shared out over time, height and width
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
        bos_token_id=token("<|im_start|>"),
        tie_word_embeddings=True,
    )


def tiny_tokens(tokenizer: Qwen2Tokenizer) -> dict[str, Any]:
    """The configuration's entries for special tokens."""
    token = tokenizer.convert_tokens_to_ids
    return {
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
        "tie_word_embeddings": True,
    }
