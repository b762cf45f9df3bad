"""Families whose image stands as tokens in the text of a chat: one user turn with the image, the caption as answer."""

from __future__ import annotations

import functools
import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cutline.core.records import Sample
from cutline.families.base import Batch, Family
from cutline.families.common import decode
from cutline.families.common.loss import IGNORED, caption_rows, pad_rows, token_nll
from cutline.families.forced_decoding import ForcedDecoding
from cutline.families.outputs import Generation, Loss
from cutline.families.settings import GenerateSettings

_MARK = "caption"  # stands for an answer where a chat template is asked what it puts around one


def around_answer(
    chat: Callable[[list[Any], bool], str], asked: list[Any], answer: Callable[[str], Any]
) -> tuple[str, str]:
    """What a chat template puts between a prompt and an answer, and after the answer.

    Args:
        chat: renders messages; with True, up to where the answer begins.
        asked: the messages before the answer.
        answer: a text → the message that holds it.
    """
    prompt, whole = chat(asked, True), chat([*asked, answer(_MARK)], False)
    if _MARK not in whole:  # a template that knows no answers
        return "", ""
    before, _, after = whole.rpartition(_MARK)
    # LLaVA-OneVision's template begins an answer otherwise than it ends a prompt: what is generated from counts
    return (before.removeprefix(prompt) if before.startswith(prompt) else "", after)


class ChatFamily(Family):
    """Batches of these families: pixels or ``features`` as the family has them; ``input_ids`` and ``attention_mask``
    [R, L]; ``rows`` [R], each row's image; with targets ``labels`` [R, L] and ``prompt_lengths`` [R].

    For training, rows are prompt + caption + end token, padded on the right and never cut inside the prompt; for
    generation the prompt alone, padded on the left. Labels are IGNORED on the prompt, so it can't be learnt, and the
    prompt's length is known, so it can't be decoded.
    """

    tasks = frozenset({"caption"})
    default_prompt = "Describe the image in one sentence."

    @abstractmethod
    def render(self, prompt: str) -> str:
        """The chat up to where the caption begins, with one image token for the image."""

    @abstractmethod
    def image_tokens(self, visual: Batch) -> list[int]:
        """How many tokens each image of a batch takes in the text."""

    @property
    @abstractmethod
    def image_token_id(self) -> int: ...

    @abstractmethod
    def hidden_states(self, batch: Batch) -> Tensor:
        """Bridge and language model, with teacher forcing: [R, L, D] hidden states that ``lm_head`` takes."""

    @abstractmethod
    def lm_head(self, hidden: Tensor) -> Tensor:
        """[M, D] hidden states → [M, V] logits."""

    @abstractmethod
    def generation_inputs(self, batch: Batch) -> dict[str, object]:
        """Keyword arguments of the model's ``generate`` for a batch without targets."""

    def plain_inputs(self, batch: Batch) -> dict[str, object]:
        """Keyword arguments with which the Hugging Face model's own ``forward`` sees a batch that holds pixels: what
        probes and tests hold this family's loss against. Logits at position t are of token t + 1."""
        rest = ("rows", "labels", "weights", "prompt_lengths")
        return {name: value for name, value in batch.items() if name not in rest}

    @property
    def answer_start(self) -> str:
        """What stands between the prompt and a caption, if anything: a space after "ASSISTANT:"."""
        return ""

    @property
    def trained_end_id(self) -> int:
        """The token that a caption is taught to end with."""
        return int(self.tokenizer.eos_token_id)

    @property
    def generator(self) -> Any:
        """The module whose ``generate`` takes ``generation_inputs``."""
        return self.model

    def returned_prompt_length(self, batch: Batch) -> int:
        """How many tokens of a prompt ``generate`` returns in front of the new ones."""
        return batch["input_ids"].shape[1]

    @property
    def end_ids(self) -> list[int]:
        """Tokens that end a caption; the first one is trained."""
        trained = self.trained_end_id
        ends = self.model.generation_config.eos_token_id
        ends = list(ends) if isinstance(ends, list | tuple) else [] if ends is None else [ends]
        return [trained, *(end for end in ends if end != trained)]

    def prompt_of(self, sample: Sample) -> str:
        """The prompt of one sample; {context} in it stands for the sample's context."""
        context = " | ".join(f"{field}: {text}" for field, text in sample.context.items() if text)
        return self.prompt.replace("{context}", self.without_markers(context)).strip()

    def without_markers(self, text: str) -> str:
        """Text that the tokenizer can't take for an image, a turn or an end, whatever people wrote into it."""
        return self._markers.sub(" ", text)

    @functools.cached_property
    def _markers(self) -> re.Pattern[str]:
        markers = sorted(filter(None, self.tokenizer.all_special_tokens), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, markers)) or r"(?!)")

    def text_inputs(self, samples: Sequence[Sample], visual: Batch, with_targets: bool) -> Batch:
        prompts = self.prompts(samples, visual)
        if not with_targets:
            return {
                "rows": torch.arange(len(samples)),
                "input_ids": pad_rows(prompts, self._pad, side="left"),
                "attention_mask": pad_rows([[1] * len(prompt) for prompt in prompts], 0, side="left"),
            }
        rows, captions = caption_rows(samples)
        prompts = [prompts[image] for image in rows.tolist()]
        targets = [self._caption_ids(caption) for caption in captions]
        texts = [prompt + target for prompt, target in zip(prompts, targets, strict=True)]
        labels = [[IGNORED] * len(prompt) + target for prompt, target in zip(prompts, targets, strict=True)]
        return {
            "rows": rows,
            "input_ids": pad_rows(texts, self._pad),
            "attention_mask": pad_rows([[1] * len(text) for text in texts], 0),
            "labels": pad_rows(labels, IGNORED),
            "prompt_lengths": torch.tensor([len(prompt) for prompt in prompts]),
        }

    @property
    def _pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.tokenizer.eos_token_id)

    def prompts(self, samples: Sequence[Sample], visual: Batch) -> list[list[int]]:
        """Token ids up to where each sample's caption begins, the image's tokens among them.

        Args:
            samples: N samples.
            visual: the image side of the batch, pixels or features.
        """
        return [
            self._prompt_ids(self.prompt_of(sample), tokens)
            for sample, tokens in zip(samples, self.image_tokens(visual), strict=True)
        ]

    def _prompt_ids(self, prompt: str, image_tokens: int) -> list[int]:
        ids = self.tokenizer(self.render(prompt), add_special_tokens=False)["input_ids"]
        position = ids.index(self.image_token_id)
        return [*ids[:position], *[self.image_token_id] * image_tokens, *ids[position + 1 :]]

    def _caption_ids(self, caption: str) -> list[int]:
        text = self.answer_start + self.without_markers(caption).strip()
        return [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.end_ids[0]]

    def forward(self, batch: Batch, label_smoothing: float = 0.0) -> Loss:
        hidden = self.hidden_states(batch)
        # position t predicts token t + 1
        labels, weights = batch["labels"][:, 1:], batch.get("weights")
        nll, tokens = token_nll(hidden[:, :-1], self.lm_head, labels, label_smoothing, weights)
        return Loss(nll, nll.new_zeros(()), tokens)

    def generate(
        self,
        batch: Batch,
        settings: GenerateSettings,
        *,
        forced: ForcedDecoding | None = None,
        num_return_sequences: int = 1,
    ) -> list[Generation]:
        with torch.no_grad():
            inputs = self.generation_inputs(batch)
        return decode.generate(
            self.generator,
            self.tokenizer,
            settings,
            inputs,
            ends=self.end_ids,
            prompt_tokens=self.returned_prompt_length(batch),
            forced=forced,
            num_return_sequences=num_return_sequences,
        )
