"""Makes ``generate`` produce given tokens, so that its log-probabilities can be compared with training's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor


class ForcedDecoding(LogitsProcessor):
    """Lets ``generate`` choose the given tokens only, and records the scores that the model gave before.

    Args:
        rows: the tokens of each row.

    Attributes:
        scores: a tensor [R, V] for each step: the model's own scores before the choice was forced.
    """

    def __init__(self, rows: Sequence[Sequence[int]]):
        self.rows = rows
        self.scores: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = len(self.scores)
        self.scores.append(scores.detach().float().clone())
        only = torch.full_like(scores, float("-inf"))
        for row, tokens in enumerate(self.rows):
            only[row, tokens[min(step, len(tokens) - 1)]] = 0.0
        return only
