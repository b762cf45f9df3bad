"""Any vision model and a small text transformer that contrasts, matches and writes: a BLIP to train from scratch.

The model is our own, in ``models/vision_mixture.py``, after BLIP (Li et al. 2022, arXiv:2201.12086). The tower is any
Hugging Face vision backbone (MobileNetV2, ResNet, ViT, …), usually frozen; the text transformer is new, with a
vocabulary of the training captions. One model that captions, embeds and matches is what bootstrapping needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from transformers import (
    BertTokenizer,
    BlipTextConfig,
)

from cutline.core.config import Section, parse
from cutline.core.errors import CheckpointError
from cutline.families.base import Batch
from cutline.families.common.blip_roles import BlipReader, BlipWriter
from cutline.families.common.from_scratch import require_captions, small_resnet, square_processor
from cutline.families.common.retrieval import unit
from cutline.families.common.tiny import example_texts
from cutline.families.common.vocabulary import word_pieces
from cutline.families.models.tower import build_tower, open_tower
from cutline.families.models.vision_mixture import VisionMixture, VisionMixtureConfig


class New(Section):
    """``[model.new]``: a text transformer from scratch on a pretrained vision tower."""

    encoder: str = Field(description="folder or hub name of the vision checkpoint")
    width: int = Field(256, ge=8, description="width of the text transformer")
    layers: int = Field(2, ge=1, description="layers of the text transformer")
    heads: int = Field(4, ge=1, description="attention heads of the text transformer")
    embedding: int = Field(256, ge=8, description="width of the vectors of images and texts")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout of the text transformer")
    feature_dropout: float = Field(0.1, ge=0, lt=1, description="dropout on the projected features of the tower")
    vocabulary_size: int = Field(
        4000, ge=200, description="largest number of word pieces, which are learnt from the captions"
    )

    @model_validator(mode="after")
    def _divides(self) -> New:
        if self.width % self.heads:
            raise ValueError(f"[model.new] width = {self.width} is not a multiple of heads = {self.heads}")
        return self


class VisionMixtureFamily(BlipWriter, BlipReader):
    tasks = frozenset({"caption", "embed", "match"})
    starts_untrained = tasks
    architecture = VisionMixture
    # some towers have a pooler, but nothing reads it
    unused = r"vision_tower\.(?:.*\.)?pooler\."
    # the text encoder has its own self-attention and shares everything else with the decoder
    unused_by_captions = (
        r"temperature|text_encoder\.encoder\.layer\.\d+\.attention\.|(?:vision_proj|text_proj|itm_head)\."
    )

    def __init__(self, model: Any, image_processor: Any, tokenizer: Any, prompt: str | None = None):
        super().__init__(model, image_processor, tokenizer, prompt)
        if self.quantized:
            raise CheckpointError(
                "A vision_mixture can't be quantised: its roles share their matrices.", "Leave [model] quantize out."
            )

    @property
    def parts(self) -> Mapping[str, str]:
        return {
            "vision": r"vision_tower\.(?:\D*\.(?P<layer>\d+)\.)?",
            "bridge": r"bridge\.|text_(?:decoder\.bert|encoder)\.encoder\.layer\.\d+\.crossattention\.",
            "head": r"text_decoder\.cls\.|itm_head\.|text_proj\.|vision_proj\.|temperature",
            "text": r"text_(?:decoder\.bert|encoder)\.(?:encoder\.layer\.(?P<layer>\d+)\.)?",
        }

    @classmethod
    def _new(cls, settings: Mapping[str, Any], captions: Sequence[str]) -> Self:
        sizes = parse(dict(settings), New, where="[model.new]")
        require_captions(captions, "A new vision_mixture")
        return cls._on(*open_tower(sizes.encoder), sizes, captions)

    @classmethod
    def _on(cls, tower: Any, image_processor: Any, sizes: New, captions: Sequence[str]) -> Self:
        tokenizer = BertTokenizer(vocab=word_pieces(captions, sizes.vocabulary_size), do_lower_case=True)
        tokenizer.add_special_tokens({"bos_token": "[DEC]"})
        tokenizer.add_special_tokens({"additional_special_tokens": ["[ENC]"]}, replace_extra_special_tokens=False)
        text = BlipTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=sizes.width,
            encoder_hidden_size=sizes.width,
            intermediate_size=4 * sizes.width,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            max_position_embeddings=128,
            hidden_dropout_prob=sizes.dropout,
            attention_probs_dropout_prob=sizes.dropout,
            initializer_range=0.5 / sizes.width**0.5,  # the usual 0.02 suits a width of 625
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.sep_token_id,
            sep_token_id=tokenizer.sep_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        config = VisionMixtureConfig(
            vision_config=tower.config.to_dict(),
            text_config=text.to_dict(),
            embed_size=sizes.embedding,
            feature_dropout=sizes.feature_dropout,
        )
        return cls(VisionMixture(config, tower), image_processor, tokenizer)

    @classmethod
    def _tiny(cls, captions: Sequence[str]) -> Self:
        return cls._tiny_new({"encoder": "a ResNet"}, captions)

    @classmethod
    def _tiny_new(cls, new: Mapping[str, Any], captions: Sequence[str]) -> Self:
        asked = parse(dict(new), New, where="[model.new]")
        small = {"width": 64, "heads": 4, "layers": 2, "embedding": 16, "vocabulary_size": 300}
        sizes = asked.model_copy(update=small | {"dropout": 0.0, "feature_dropout": 0.0})
        return cls._on(build_tower(small_resnet()), square_processor(64), sizes, captions or example_texts())

    def encode_images(self, batch: Batch) -> Batch:
        # channels last: convolutions on a CPU take a fifth to a third less time
        pixels = batch["pixel_values"].to(self.device, self.dtype, memory_format=torch.channels_last)
        return {"features": self.model.encode_images(pixels)}

    def memory(self, features: Tensor) -> Tensor:
        return self.model.remember(features)  # type: ignore[no-any-return]

    def embed_images(self, batch: Batch) -> Tensor:
        return unit(self.model.pooled(self.with_image_features(batch)["features"]))

    def scale(self) -> tuple[Tensor, Tensor | None]:
        return 1 / self.model.temperature, None

    def bound_scale(self) -> None:
        self.model.temperature.data.clamp_(0.001, 0.5)
