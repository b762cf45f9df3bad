"""A convolutional (or any) vision tower and an LSTM or GRU that attends over its grid, after Xu et al. 2015.

Source: Show, Attend and Tell, arXiv:1502.03044. The model is our own, in ``models/cnn_rnn.py``; the tower is any
Hugging Face vision backbone (MobileNetV2, ResNet, ViT, …) or the VGG in ``models/vgg.py``. The vocabulary is built from
the training captions and saved with the checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from cutline.core.config import Section, parse
from cutline.families.base import Batch
from cutline.families.common.encoder_decoder import EncoderDecoderFamily
from cutline.families.common.from_scratch import caption_vocabulary, require_captions, small_resnet, square_processor
from cutline.families.common.tiny import example_texts
from cutline.families.models.cnn_rnn import CnnRnnForConditionalGeneration
from cutline.families.models.tower import build_tower, open_tower
from cutline.families.models.tower_split import split_tower
from cutline.families.models.vgg import VggConfig, open_vgg


class New(Section):
    """``[model.new]``: a decoder from scratch on a tower, pretrained (``encoder``) or from scratch (``vgg``)."""

    encoder: str | None = Field(None, description="folder or hub name of the vision checkpoint")
    vgg: Literal[11, 13, 16, 19] | None = Field(
        None, description="depth of a VGG instead of encoder; from scratch unless vgg_weights is set"
    )
    vgg_weights: str | None = Field(
        None, description="file, folder or hub name of the VGG's convolutions, such as timm/vgg19.tv_in1k"
    )
    cell: Literal["lstm", "gru"] = Field("lstm", description="recurrent cell")
    attention: Literal["additive", "dot"] = Field(
        "additive", description="attention over the image: additive as in the paper, or dot product, which is faster"
    )
    gate: Literal["scalar", "channel"] = Field(
        "scalar", description="gate on the context: one number as in the paper, or one for each channel"
    )
    embedding: int = Field(512, ge=4, description="width of the word embeddings and of the deep output layer")
    hidden: int = Field(512, ge=4, description="width of the recurrent state")
    memory: int = Field(512, ge=4, description="width of the projected features")
    attention_size: int = Field(512, ge=4, description="width of the attention's keys")
    dropout: float = Field(0.5, ge=0, lt=1, description="dropout on embeddings, states and deep outputs")
    feature_dropout: float = Field(0.1, ge=0, lt=1, description="dropout on the tower's features")
    doubly_stochastic: float = Field(
        1.0, ge=0, description="weight of the penalty that pulls each cell's total attention towards 1"
    )
    tied: bool = Field(False, description="use the word embeddings as the output layer too")
    vocabulary: Literal["words", "bpe"] = Field("words", description="tokens are whole words, or byte-level pieces")
    min_count: int = Field(5, ge=1, description="words that occur less often in the training captions become <unk>")
    vocabulary_size: int = Field(10_000, ge=8, description="largest number of tokens")
    lowercase: bool = Field(True, description="write words in lower case")

    @model_validator(mode="after")
    def _one_tower(self) -> New:
        if (self.encoder is None) == (self.vgg is None):
            raise ValueError("[model.new] needs either encoder = … or vgg = …")
        if self.vgg_weights is not None and self.vgg is None:
            raise ValueError("[model.new] has vgg_weights but no depth; set vgg = 11, 13, 16 or 19")
        return self


class CnnRnn(EncoderDecoderFamily):
    architecture = CnnRnnForConditionalGeneration
    # some towers have a pooler, but nothing reads it
    unused = r"encoder\.(?:.*\.)?pooler\."
    serial = True

    @property
    def parts(self) -> Mapping[str, str]:
        return {
            "vision": r"encoder\.(?:\D*\.(?P<layer>\d+)\.)?",
            "bridge": r"bridge\.",
            "text": r"decoder\.",
            "head": r"head\.",
        }

    @classmethod
    def _new(cls, settings: Mapping[str, Any], captions: Sequence[str]) -> Self:
        sizes = parse(dict(settings), New, where="[model.new]")
        require_captions(captions, "A new cnn_rnn")
        if sizes.encoder is not None:
            tower, image_processor = open_tower(sizes.encoder)
        else:
            depth = sizes.vgg or 16
            tower = open_vgg(depth, sizes.vgg_weights) if sizes.vgg_weights else build_tower(VggConfig(depth=depth))
            image_processor = square_processor(224, image_mean=IMAGENET_DEFAULT_MEAN, image_std=IMAGENET_DEFAULT_STD)
        return cls._on(tower, image_processor, sizes, captions)

    @classmethod
    def _on(cls, tower: Any, image_processor: Any, sizes: New, captions: Sequence[str]) -> Self:
        tokenizer = caption_vocabulary(
            captions,
            sizes.vocabulary,
            size=sizes.vocabulary_size,
            min_count=sizes.min_count,
            lowercase=sizes.lowercase,
        )
        model = CnnRnnForConditionalGeneration.from_tower(
            tower,
            cell=sizes.cell,
            attention=sizes.attention,
            gate=sizes.gate,
            embedding_size=sizes.embedding,
            hidden_size=sizes.hidden,
            memory_size=sizes.memory,
            attention_size=sizes.attention_size,
            dropout=sizes.dropout,
            feature_dropout=sizes.feature_dropout,
            doubly_stochastic=sizes.doubly_stochastic,
            tie_word_embeddings=sizes.tied,
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            decoder_start_token_id=tokenizer.bos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            unk_token_id=tokenizer.unk_token_id,
        )
        return cls(model, image_processor, tokenizer)

    @classmethod
    def _tiny(cls, captions: Sequence[str]) -> Self:
        return cls._tiny_new({"encoder": "a ResNet", "min_count": 1}, captions)

    @classmethod
    def _tiny_new(cls, new: Mapping[str, Any], captions: Sequence[str]) -> Self:
        asked = parse(dict(new), New, where="[model.new]")
        small = {"embedding": 32, "hidden": 48, "memory": 32, "attention_size": 16}
        sizes = asked.model_copy(update=small | {"dropout": 0.0, "feature_dropout": 0.0, "min_count": 1})
        config = VggConfig(depth=sizes.vgg, widths=[8, 8, 16, 16, 32]) if sizes.vgg else small_resnet()
        return cls._on(build_tower(config), square_processor(64), sizes, captions or example_texts())

    def encode_images(self, batch: Batch) -> Batch:
        # channels last: MobileNetV2 on a CPU takes a fifth to a third less time
        pixels = batch["pixel_values"].to(self.device, self.dtype, memory_format=torch.channels_last)
        return {"features": self.model.encode_images(pixels)}

    def freeze_boundary(self) -> bool:
        self.model.split = None
        if self.vision_is_frozen:
            return True
        pattern = self.parts["vision"]
        matches = (re.match(pattern, name) for name, _ in self.model.named_parameters())
        layers = {match[0].removeprefix("encoder.").rstrip(".") for match in matches if match and match["layer"]}
        size = self.image_processor.size
        height, width = size.get("height") or size["shortest_edge"], size.get("width") or size["shortest_edge"]
        self.model.split = split_tower(self.model.encoder, layers, height, width)
        return self.model.split is not None

    def vision_tensors(self) -> Iterator[tuple[str, Tensor]]:
        halves = self.model.split
        for name, tensor in super().vision_tensors():
            if halves is None or any(name.startswith(f"encoder.{unit}.") for unit in halves.frozen):
                yield name, tensor

    def decode_with_teacher_forcing(
        self, features: Tensor, rows: Tensor, decoder_input_ids: Tensor, is_label: Tensor
    ) -> tuple[Tensor, Tensor]:
        lengths = is_label.sum(1)
        hidden, alphas = self.model.decode_teacher(features, decoder_input_ids, rows, lengths)
        weight = self.model.config.doubly_stochastic if self.training else 0.0
        # each row's penalty counts as much as one average label of the row
        penalty = (self.model.attention_penalty(alphas, is_label) * lengths).sum()
        return hidden, weight * penalty

    def lm_head(self, hidden: Tensor) -> Tensor:
        return self.model.head(hidden)  # type: ignore[no-any-return]
