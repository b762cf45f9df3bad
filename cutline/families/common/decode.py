"""Running Hugging Face's ``generate`` with our settings, and reading captions, log-probabilities and ends off it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)

from cutline.families.common.logits_processors import ForcePrefix, WordCount
from cutline.families.forced_decoding import ForcedDecoding
from cutline.families.outputs import Generation
from cutline.families.settings import GenerateSettings


class _SequenceLogprobs(LogitsProcessor):
    """Log-probability of each sequence, without keeping the distributions of all steps.

    Beam search changes rows between steps and sets finished beams aside, so sequences are identified by their tokens.
    """

    def __init__(self, beams: int, prompt_tokens: int, ends: Sequence[int]):
        self.beams, self.prompt_tokens, self.ends = beams, prompt_tokens, list(ends)
        self._rows: dict[tuple[int, ...], int] = {}  # sequence → its row at the last step
        self._totals = torch.zeros(0)  # [R] up to the last step
        self._last = torch.zeros(0)  # [R, V] log-probabilities at the last step
        self._ended: dict[tuple[int, ...], float] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        logprobs = scores.float().log_softmax(-1)
        keys = [(row // self.beams, *ids) for row, ids in enumerate(input_ids[:, self.prompt_tokens :].tolist())]
        if self._rows:
            # a row that was padded after its end has no parent any more; it doesn't count
            parents = torch.tensor([self._rows.get(key[:-1], 0) for key in keys], device=scores.device)
            totals = self._totals[parents] + self._last[parents, input_ids[:, -1]]
        else:
            totals = torch.zeros(len(keys), device=scores.device)
        self._rows = {key: row for row, key in enumerate(keys)}
        self._totals, self._last = totals, logprobs
        at_end = (totals[:, None] + logprobs[:, self.ends]).tolist()
        for key, row in self._rows.items():
            for end, total in zip(self.ends, at_end[row], strict=True):
                self._ended.setdefault((*key, end), total)
        return scores

    def of(self, item: int, tokens: Sequence[int]) -> float:
        """The log-probability of an item's finished or cut sequence, in nats."""
        key = (item, *tokens)
        if key in self._ended:
            return self._ended[key]
        row = self._rows[key[:-1]]
        return float(self._totals[row] + self._last[row, key[-1]])


class _OfCaption(LogitsProcessor):
    """Applies a processor to the new tokens only: words of the prompt don't count as repetitions.

    Hugging Face's own would count the prompt, image tokens included; and where the prompt is given as embeddings, they
    would take the first words of rows that are padded on the left for padding.
    """

    def __init__(self, processor: LogitsProcessor, prompt_tokens: int):
        self.processor, self.prompt_tokens = processor, prompt_tokens

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        penalised: Tensor = self.processor(input_ids[:, self.prompt_tokens :], scores)
        return penalised


def generate(
    model: Any,
    tokenizer: Any,
    settings: GenerateSettings,
    inputs: Mapping[str, Any],
    *,
    ends: Sequence[int],
    prompt_tokens: int,
    forced: ForcedDecoding | None = None,
    num_return_sequences: int = 1,
) -> list[Generation]:
    """Generates a caption for each row.

    Args:
        model: a Hugging Face model with ``generate``.
        tokenizer: decodes the new tokens.
        settings: the user's settings; they replace the checkpoint's generation_config for beams, sampling and lengths;
            its special tokens and suppressed tokens are kept.
        inputs: keyword arguments of ``generate``.
        ends: ids of the tokens that end a caption.
        prompt_tokens: how many leading tokens of the output are prompt (or decoder start).
        forced: produces given tokens instead of the model's choice; greedy only.
        num_return_sequences: captions sampled for each row, whose image is encoded once.

    Returns:
        ``num_return_sequences`` generations per row, those of a row next to each other. Log-probabilities are of the
        distribution before penalties for repetition, temperature, top-k and top-p.
    """
    logprobs = _SequenceLogprobs(settings.num_beams, prompt_tokens, ends)
    processors: list[LogitsProcessor] = [logprobs]
    if settings.repetition_penalty != 1.0:
        processors.append(_OfCaption(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty), prompt_tokens))
    if settings.no_repeat_ngram_size:
        processors.append(_OfCaption(NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size), prompt_tokens))
    if settings.min_words or settings.max_words:
        words = WordCount(tokenizer, ends, settings.min_words, settings.max_words)
        processors.append(_OfCaption(words, prompt_tokens))
    if settings.prefix:
        start = tokenizer(settings.prefix.strip(), add_special_tokens=False)["input_ids"]
        processors.append(_OfCaption(ForcePrefix(start), prompt_tokens))
    config = _config(model, settings, ends)
    if forced:
        processors.append(forced)
        # nothing forbidden and nothing else forced; None would be filled in from the model's own settings
        config.suppress_tokens = config.begin_suppress_tokens = []
    config.num_return_sequences = num_return_sequences
    with torch.no_grad():
        sequences = model.generate(
            **inputs,
            generation_config=config,
            logits_processor=LogitsProcessorList(processors),
        )
    generations = []
    for item, row in enumerate(sequences[:, prompt_tokens:].tolist()):
        end = next((position for position, token in enumerate(row) if token in ends), None)
        tokens = row if end is None else row[: end + 1]
        text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
        generations.append(Generation(text, logprobs.of(item, tokens), len(tokens), end is not None))
    return generations


def _config(model: Any, settings: GenerateSettings, ends: Sequence[int]) -> GenerationConfig:
    kept = model.generation_config
    return GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        min_new_tokens=settings.min_new_tokens or None,
        num_beams=settings.num_beams,
        length_penalty=settings.length_penalty,
        do_sample=settings.do_sample,
        **({"temperature": settings.temperature, "top_p": settings.top_p, "top_k": settings.top_k}
           if settings.do_sample else {}),
        bos_token_id=kept.bos_token_id,
        pad_token_id=kept.pad_token_id if kept.pad_token_id is not None else ends[0],
        eos_token_id=list(ends),
        decoder_start_token_id=kept.decoder_start_token_id,
        suppress_tokens=kept.suppress_tokens,
        begin_suppress_tokens=kept.begin_suppress_tokens,
        forced_bos_token_id=kept.forced_bos_token_id,
        use_cache=True,
    )  # fmt: skip
