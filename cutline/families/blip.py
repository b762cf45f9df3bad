"""BLIP: a captioner, a matcher for retrieval, or both in one model (the mixture of encoder–decoder).

Source: Li et al. 2022, arXiv:2201.12086; the code of Hugging Face transformers; the evaluation of the authors' code for
retrieval. Captioner and matcher have the same ``model_type``; ``architectures`` in config.json says which one it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import torch
from pydantic import Field
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipImageProcessorPil,
    BlipProcessor,
)

from cutline.core.config import Section, parse
from cutline.core.errors import CheckpointError
from cutline.families.base import POLICY_FILE, Batch, Family
from cutline.families.common.blip_roles import BlipReader, BlipWriter
from cutline.families.common.tiny import wordpiece
from cutline.families.models.blip_mixture import BlipMixture
from cutline.families.weights.quantize import Quantization


class New(Section):
    """``[model.new]``: a mixture of encoder–decoder, which captions and matches, from a matcher."""

    matcher: str = Field(description="folder or hub name of a BLIP matcher; its text encoder also becomes the decoder")


class Blip(Family):
    """Shared code of the three variants; ``open``, ``new`` and ``tiny`` return the right one."""

    tasks = frozenset({"caption", "embed", "match"})

    @property
    def parts(self) -> Mapping[str, str]:
        layer = r"encoder\.layer\.(?P<layer>\d+)\."
        return {
            "vision": r"vision_model\.(?:encoder\.layers\.(?P<layer>\d+)\.)?",
            "bridge": r"text_(?:decoder\.bert|encoder)\.encoder\.layer\.\d+\.crossattention\.",
            "head": r"text_decoder\.cls\.|itm_head\.|text_proj\.|vision_proj\.|temperature",
            "text": rf"text_(?:decoder\.bert|encoder)\.(?:{layer})?",
        }

    @classmethod
    def open(
        cls, checkpoint: str, dtype: torch.dtype = torch.float32, quantization: Quantization | None = None
    ) -> Self:
        config = AutoConfig.from_pretrained(checkpoint)
        names = config.architectures or []
        kind = next((kind for kind in _KINDS if kind.architecture.__name__ in names), None)
        if kind is None:
            raise CheckpointError(
                f"{checkpoint} is not a BLIP captioner or matcher: {', '.join(names) or 'config.json names no class'}.",
                "Use a captioner such as Salesforce/blip-image-captioning-base, or a matcher such as "
                "Salesforce/blip-itm-base-flickr.",
            )
        _fix_heads(config, checkpoint)
        model = kind.from_pretrained(kind.architecture, checkpoint, dtype, quantization, config=config)
        processor = BlipImageProcessorPil.from_pretrained(checkpoint)
        return cast(Self, kind(model, processor, AutoTokenizer.from_pretrained(checkpoint)))

    @classmethod
    def class_of(cls, config: Any) -> type[Family]:
        names = config.architectures or []
        return next((kind for kind in _KINDS if kind.architecture.__name__ in names), BlipCaptioner)

    @classmethod
    def variants(cls) -> tuple[type[Family], ...]:
        return _KINDS

    @classmethod
    def _class_for(cls, task: str, checkpoint: str) -> type[Family]:
        if cls in _KINDS:
            return cls
        return BlipMatcher if task in BlipMatcher.tasks else BlipCaptioner

    @classmethod
    def _tiny(cls, captions: Sequence[str]) -> Self:
        return cast(Self, _tiny(cls, captions))

    @classmethod
    def _tiny_new(cls, new: Mapping[str, Any], captions: Sequence[str]) -> Self:
        parse(dict(new), New, where="[model.new]")
        return cast(Self, _tiny(BlipMixtureFamily, captions))

    @classmethod
    def _new(cls, settings: Mapping[str, Any], captions: Sequence[str]) -> Self:
        wanted = parse(dict(settings), New, where="[model.new]")
        try:
            matcher = cls.open(wanted.matcher)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"[model.new] matcher = {wanted.matcher!r} could not be opened: {str(error).splitlines()[0]}",
                "Give the folder of a BLIP matcher, or its name on the hub.",
            ) from error
        if not isinstance(matcher, BlipMatcher):
            raise CheckpointError(f"{wanted.matcher} is not a BLIP matcher.", "Use one, such as blip-itm-base-coco.")
        model = BlipMixture(matcher.model.config)
        model.load_state_dict(matcher.model.state_dict(), strict=False)
        # the decoder's own self-attention is initialised from the encoder's
        state = {f"bert.{name}": tensor for name, tensor in model.text_encoder.state_dict().items()}
        model.text_decoder.load_state_dict(state, strict=False)
        return cast(Self, BlipMixtureFamily(model, matcher.image_processor, matcher.tokenizer))

    def save(self, folder: str | Path) -> None:
        BlipProcessor(self.image_processor, self.tokenizer).save_pretrained(folder)
        super().save(folder)

    def encode_images(self, batch: Batch) -> Batch:
        pixels = batch["pixel_values"].to(self.device, self.dtype)
        return {"features": self.model.vision_model(pixel_values=pixels).last_hidden_state}


class BlipCaptioner(Blip, BlipWriter):
    """``BlipForConditionalGeneration``."""

    tasks = BlipWriter.tasks
    architecture = BlipForConditionalGeneration
    default_prompt = "a picture of"  # what the published captioners were trained with


class BlipMatcher(Blip, BlipReader):
    """``BlipForImageTextRetrieval``."""

    tasks = BlipReader.tasks
    architecture = BlipForImageTextRetrieval


class BlipMixtureFamily(BlipCaptioner, BlipMatcher):
    """Captions, embeds and matches; caption bootstrapping trains it."""

    tasks = frozenset({"caption", "embed", "match"})
    starts_untrained = frozenset({"caption"})
    architecture = BlipMixture

    def __init__(self, model: Any, image_processor: Any, tokenizer: Any, prompt: str | None = None):
        super().__init__(model, image_processor, tokenizer, prompt)
        if self.quantized:
            raise CheckpointError(
                "BLIP's mixture of encoder–decoder can't be quantised: its roles share their matrices.",
                "Leave [model] quantize out.",
            )

    def scale(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        return 1 / self.model.temperature, None

    def bound_scale(self) -> None:
        self.model.temperature.data.clamp_(0.001, 0.5)


_KINDS: tuple[type[Any], ...] = (BlipCaptioner, BlipMatcher, BlipMixtureFamily)


def _fix_heads(config: Any, checkpoint: str) -> None:
    """BLIP's text transformers have 12 heads; older copies of the hub's configurations leave that out, and the default
    of transformers, 8, gives poorer results without a warning (transformers#22625)."""
    text = config.text_config
    if text.hidden_size == 768 and text.num_attention_heads == 8 and not (Path(checkpoint) / POLICY_FILE).is_file():
        text.num_attention_heads = 12


def _tiny(kind: Any, captions: Sequence[str]) -> Any:
    tokenizer = BertTokenizer(vocab=wordpiece(captions), do_lower_case=True)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_special_tokens({"additional_special_tokens": ["[ENC]"]}, replace_extra_special_tokens=False)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 48,
        "patch_size": 8,
        "initializer_range": 0.02,  # the default, 1e-10, is for weights that are loaded
    }
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = kind.architecture(BlipConfig(vision_config=vision, text_config=text, image_text_hidden_size=16))
    return kind(model, BlipImageProcessorPil(size={"height": 48, "width": 48}), tokenizer)
