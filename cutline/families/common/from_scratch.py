"""Small halves from scratch, for ``[model.new]``: a ViT, a GPT-2, and vocabularies of the training captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ViTConfig,
    ViTImageProcessorPil,
)

from cutline.core.config import Section
from cutline.core.errors import CheckpointError
from cutline.families.common.vocabulary import byte_bpe, word_level


class SmallHalves(Section):
    """Sizes of a ViT and a GPT-2 from scratch."""

    image_size: int = Field(48, ge=16, description="side of the input of a ViT from scratch, in px")
    patch_size: int = Field(8, ge=2, description="side of a patch of a ViT from scratch, in px")
    vision_layers: int = Field(3, ge=1, description="layers of a ViT from scratch")
    vision_width: int = Field(96, ge=8, description="width of a ViT from scratch")
    text_layers: int = Field(3, ge=1, description="layers of a GPT-2 from scratch")
    text_width: int = Field(128, ge=8, description="width of a GPT-2 from scratch")
    heads: int = Field(4, ge=1, description="attention heads of a ViT and of a GPT-2 from scratch")

    def vit(self) -> tuple[ViTConfig, ViTImageProcessorPil]:
        """The configuration of the ViT, and its image processor."""
        config = ViTConfig(
            hidden_size=self.vision_width,
            intermediate_size=2 * self.vision_width,
            num_hidden_layers=self.vision_layers,
            num_attention_heads=self.heads,
            image_size=self.image_size,
            patch_size=self.patch_size,
        )
        return config, square_processor(self.image_size)


def square_processor(side: int, **more: Any) -> ViTImageProcessorPil:
    """An image processor that stretches images to a square with sides of so many px."""
    return ViTImageProcessorPil(size={"height": side, "width": side}, **more)


def small_resnet() -> ResNetConfig:
    """A tower for miniatures. Features of a deep tower with random weights are nearly the same for every image; those
    of this shallow one differ."""
    return ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic")


def special_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The ids of a tokenizer's special tokens, under the names of a config."""
    return {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}


def gpt2_config(
    tokenizer: PreTrainedTokenizerBase,
    *,
    width: int,
    layers: int,
    heads: int,
    positions: int,
    dropout: float,
    **more: Any,
) -> GPT2Config:
    """A GPT-2 of any size. Dropout is everywhere: a model soon learns a few thousand captions by heart."""
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    return GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        n_positions=positions,
        **rates,
        **special_ids(tokenizer),
        **more,
    )


def small_gpt2(tokenizer: PreTrainedTokenizerBase, **sizes: Any) -> GPT2LMHeadModel:
    """A GPT-2 with random weights; for its sizes see ``gpt2_config``."""
    return GPT2LMHeadModel(gpt2_config(tokenizer, **sizes))


def caption_vocabulary(
    captions: Sequence[str], kind: str, *, size: int, min_count: int, lowercase: bool
) -> PreTrainedTokenizerFast:
    """A tokenizer built from captions: "words", or byte-level pieces ("bpe")."""
    return word_level(captions, min_count, size, lowercase) if kind == "words" else byte_bpe(captions, size)


def require_captions(captions: Sequence[str], model: str) -> None:
    """Raises a CheckpointError where a model can't be built because there are no captions."""
    if not captions:
        raise CheckpointError(
            f"{model} takes its vocabulary from captions, and there are none.",
            "Train it on a dataset with a train split.",
        )
