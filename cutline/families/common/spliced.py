"""Families whose Hugging Face model replaces the image tokens of a prompt by image features.

LLaVA, PaliGemma, Gemma 3, InternVL, SmolVLM and Qwen-VL do, and all take precomputed features as
``mm_encoder_outputs``, so that a frozen tower can be skipped. Each family's file defines what differs: the parts, the
bridge, and the text that an image's placeholder becomes.
"""

from __future__ import annotations

import functools
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from cutline.core.errors import CheckpointError
from cutline.core.records import Sample
from cutline.families.base import Batch
from cutline.families.common.chat import ChatFamily, around_answer
from cutline.families.common.tower import hidden_at
from cutline.families.settings import ImagePolicy
from cutline.families.weights.quantize import Quantization


class SplicedFamily(ChatFamily):
    """A family whose Hugging Face model takes image features in place of a prompt's image tokens."""

    #: The model's and the processor's classes in transformers.
    model_class: ClassVar[Any]
    processor_class: ClassVar[Any]

    def __init__(self, model: Any, processor: Any, prompt: str | None = None):
        super().__init__(model, processor.image_processor, processor.tokenizer, prompt)
        self.processor = processor

    @property
    def parts(self) -> Mapping[str, str]:
        return {
            "vision": r"model\.vision_tower\.(?:(?:vision_model\.)?encoder\.layers\.(?P<layer>\d+)\.)?",
            "bridge": r"model\.multi_modal_projector\.",
            "head": r"lm_head\.",
            "text": r"model\.language_model\.(?:layers\.(?P<layer>\d+)\.)?",
        }

    @classmethod
    def open(
        cls, checkpoint: str, dtype: torch.dtype = torch.float32, quantization: Quantization | None = None
    ) -> Self:
        model = cls.from_pretrained(cls.model_class, checkpoint, dtype, quantization)
        return cls(model, cls.processor_class.from_pretrained(checkpoint, backend="pil"))

    def save(self, folder: str | Path) -> None:
        self.processor.save_pretrained(folder)
        super().save(folder)

    def set_policy(self, policy: ImagePolicy) -> None:
        if policy.size:
            raise CheckpointError(
                f"{self.name()} has one input size; [model.image] size doesn't apply.",
                "Leave size out; fit sets how images are resized to it.",
            )
        super().set_policy(policy)

    # ---- text

    @property
    def image_token_id(self) -> int:
        return int(self.model.config.image_token_id)

    @property
    def placeholder(self) -> str:
        """The token that marks an image in a rendered prompt."""
        return str(self.processor.image_token)

    def messages(self, prompt: str) -> list[dict[str, Any]]:
        return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]

    def render(self, prompt: str) -> str:
        return self._chat(self.messages(prompt), add_generation_prompt=True)

    def _chat(self, messages: list[dict[str, Any]], add_generation_prompt: bool) -> str:
        options = {"tokenize": False, "add_generation_prompt": add_generation_prompt}
        return str(self.processor.apply_chat_template(messages, **options))

    @functools.cached_property
    def _around_answer(self) -> tuple[str, str]:
        """The text that the chat template puts between the prompt and an answer, and after the answer."""

        def answer(text: str) -> dict[str, Any]:
            return {"role": "assistant", "content": [{"type": "text", "text": text}]}

        return around_answer(self._chat, self.messages("-"), answer)

    @property
    def answer_start(self) -> str:
        return self._around_answer[0]

    @property
    def trained_end_id(self) -> int:
        """The token with which the chat template ends a turn (<end_of_turn>, not <eos>); without one, the tokenizer's
        end token."""
        after = self.tokenizer(self._around_answer[1], add_special_tokens=False)["input_ids"]
        return int(after[0]) if after and after[0] in self.tokenizer.all_special_ids else super().trained_end_id

    def image_tokens(self, visual: Batch) -> list[int]:
        token = self.tokenizer.convert_ids_to_tokens(self.image_token_id)
        return [text.count(token) for text in self.image_texts(visual)]

    @abstractmethod
    def image_texts(self, visual: Batch) -> list[str]:
        """The text that replaces each image's placeholder: its image tokens and the markers around them."""

    def prompts(self, samples: Sequence[Sample], visual: Batch) -> list[list[int]]:
        return [
            self._tokens(self.render(self.prompt_of(sample)).replace(self.placeholder, text, 1))
            for sample, text in zip(samples, self.image_texts(visual), strict=True)
        ]

    def _tokens(self, rendered: str) -> list[int]:
        """Token ids, with one beginning-of-text token if the tokenizer adds one; a template may contain it already."""
        ids: list[int] = self.tokenizer(rendered, add_special_tokens=False)["input_ids"]
        bos = self.tokenizer.bos_token_id
        return [bos, *ids] if self._sets_bos and ids[:1] != [bos] else ids

    @functools.cached_property
    def _sets_bos(self) -> bool:
        bos = self.tokenizer.bos_token_id
        return bos is not None and self.tokenizer("")["input_ids"][:1] == [bos]

    def _caption_ids(self, caption: str) -> list[int]:
        """The caption's tokens as they are after the prompt. Some tokenizers add a space in front of a caption that
        stands alone."""
        text = self.without_markers(caption).strip()
        before: list[int] = self.tokenizer(self._answer_opener, add_special_tokens=False)["input_ids"]
        whole: list[int] = self.tokenizer(self._answer_opener + self.answer_start + text, add_special_tokens=False)[
            "input_ids"
        ]
        if whole[: len(before)] != before:  # the first word merged with the end of the prompt
            whole = before + list(self.tokenizer(self.answer_start + text, add_special_tokens=False)["input_ids"])
        return [*whole[len(before) :], self.end_ids[0]]

    @functools.cached_property
    def _answer_opener(self) -> str:
        """The last line of a prompt: "assistant\n", "ASSISTANT:"."""
        last = re.search(r"[^\n]*\s*$", self.render("-"))
        return last.group() if last else ""

    # ---- model

    def encode_images(self, batch: Batch) -> Batch:
        """``features`` [N, T, C] from the layer of the tower that the configuration names, as LLaVA's does."""
        pixels = batch["pixel_values"].to(self.device, self.dtype)
        layers, strategy = self.config.vision_feature_layer, self.config.vision_feature_select_strategy
        return {"features": hidden_at(self.model.model.vision_tower, pixels, layers, strategy)}

    @abstractmethod
    def bridge(self, features: Batch, rows: Tensor) -> BaseModelOutputWithPooling:
        """Features → the embeddings of each row's image that the language model reads, as ``pooler_output``."""

    def token_types(self, batch: Batch) -> dict[str, Tensor]:
        """Further inputs with which a model tells image, prompt and caption apart; none for most models."""
        return {}

    def pixel_inputs(self, batch: Batch) -> Mapping[str, Tensor]:
        """The pixels of each row's image as the model's ``forward`` takes them."""
        return {"pixel_values": batch["pixel_values"][batch["rows"]]}

    def plain_inputs(self, batch: Batch) -> dict[str, object]:
        text = {name: batch[name] for name in ("input_ids", "attention_mask")}
        return {**text, **self.token_types(batch), **self.pixel_inputs(batch)}

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        """The arguments that forward and generate share."""
        features = self.with_image_features(batch)
        return {
            "input_ids": batch["input_ids"],
            "attention_mask": batch["attention_mask"],
            **self.token_types(batch),
            "mm_encoder_outputs": {"image": self.bridge(features, batch["rows"])},
        }

    def hidden_states(self, batch: Batch) -> Tensor:
        return self.model.model(**self._inputs(batch), use_cache=False).last_hidden_state  # type: ignore[no-any-return]

    def generation_inputs(self, batch: Batch) -> dict[str, object]:
        return self._inputs(batch)

    def lm_head(self, hidden: Tensor) -> Tensor:
        return self.model.lm_head(hidden)  # type: ignore[no-any-return]
