"""What a caption must begin with, and how many words it may have, enforced token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import LogitsProcessor

NEVER = float("-inf")


class Start(LogitsProcessor):
    """The first tokens are given; what follows is the model's.

    Args:
        ids: the tokens.
    """

    def __init__(self, ids: Sequence[int]):
        self.ids = list(ids)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        said = input_ids.shape[1]
        if said >= len(self.ids):
            return scores
        forced = torch.full_like(scores, NEVER)
        forced[:, self.ids[said]] = scores[:, self.ids[said]].clamp_min(torch.finfo(scores.dtype).min / 2)
        return forced


class Words(LogitsProcessor):
    """No end before ``least`` words, and no word after ``most``; words are what spaces divide.

    A caption with ``most`` words may finish its last word and have a full stop. Where the model would rather begin
    another word, it ends.

    Args:
        tokenizer: decodes what was said.
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
            # an end that was ruled out before (it need not be a finite score) is ruled in
            unending = done & (scores == NEVER).all(1)
            scores[unending[:, None] & ends] = 0.0
        return scores


_known: WeakKeyDictionary[Any, Tensor] = WeakKeyDictionary()


def begins_word(tokenizer: Any, size: int) -> Tensor:
    """[size] whether each token, said after a word, begins another one; a token without a text counts as beginning."""
    found = _known.get(tokenizer)
    if found is None:
        count = len(tokenizer)
        anchor = next(id for id in range(count) if tokenizer.decode([id]).strip().isalpha())
        texts = tokenizer.batch_decode([[anchor, id] for id in range(count)])
        found = torch.tensor([len(f"{text}x".split()) > 1 for text in texts])  # a space at its end lets one begin, too
        _known[tokenizer] = found
    padded = torch.ones(size, dtype=torch.bool)
    padded[: min(size, len(found))] = found[:size]
    return padded
