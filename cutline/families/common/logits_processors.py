"""Logits processors that force a caption's first words and bound its number of words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import LogitsProcessor

NEVER = float("-inf")


class ForcePrefix(LogitsProcessor):
    """Forces the first tokens of a caption; the model chooses the rest.

    Args:
        ids: the forced tokens.
    """

    def __init__(self, ids: Sequence[int]):
        self.ids = list(ids)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = input_ids.shape[1]
        if step >= len(self.ids):
            return scores
        forced = torch.full_like(scores, NEVER)
        forced[:, self.ids[step]] = scores[:, self.ids[step]].clamp_min(torch.finfo(scores.dtype).min / 2)
        return forced


class WordCount(LogitsProcessor):
    """Forbids the end before ``least`` words and a new word after ``most``; words are separated by spaces.

    A caption with ``most`` words may still finish its last word and add punctuation. Where the model prefers to begin
    another word, the caption ends.

    Args:
        tokenizer: decodes the tokens so far.
        ends: ids of the tokens that end a caption.
        least, most: bounds; 0 for none.
    """

    def __init__(self, tokenizer: Any, ends: Sequence[int], least: int, most: int):
        self.tokenizer, self.ends, self.least, self.most = tokenizer, list(ends), least, most

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        texts = self.tokenizer.batch_decode(input_ids, skip_special_tokens=True)
        counts = torch.tensor([len(text.split()) for text in texts], device=scores.device)
        scores = scores.clone()
        ends = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
        ends[self.ends] = True
        if self.least:
            scores[(counts < self.least)[:, None] & ends] = NEVER
        if self.most:
            begins = begins_word(self.tokenizer, scores.shape[1]).to(scores.device) & ~ends
            full = counts >= self.most
            done = full & begins[scores.argmax(1)]
            scores[full[:, None] & begins] = NEVER
            scores[done[:, None] & ~ends] = NEVER
            # if the end was forbidden before (its score need not be finite), it is allowed again
            unending = done & (scores == NEVER).all(1)
            scores[unending[:, None] & ends] = 0.0
        return scores


_cached: WeakKeyDictionary[Any, Tensor] = WeakKeyDictionary()


def begins_word(tokenizer: Any, size: int) -> Tensor:
    """[size] whether each token, after a word, begins another one; a token without text counts as beginning one."""
    found = _cached.get(tokenizer)
    if found is None:
        count = len(tokenizer)
        anchor = next(id for id in range(count) if tokenizer.decode([id]).strip().isalpha())
        texts = tokenizer.batch_decode([[anchor, id] for id in range(count)])
        found = torch.tensor([len(f"{text}x".split()) > 1 for text in texts])  # a trailing space begins one, too
        _cached[tokenizer] = found
    padded = torch.ones(size, dtype=torch.bool)
    padded[: min(size, len(found))] = found[:size]
    return padded
