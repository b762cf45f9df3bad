"""Scoring many pairs of images and texts, an image at a time: the plain way, and what a fast way must offer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutline.families.base import Batch

if TYPE_CHECKING:
    from cutline.families.common.retrieval import RetrievalFamily


class Matching(ABC):
    """The matching scores of one image with any of M texts, which are prepared once."""

    @abstractmethod
    def scores(self, features: Batch, texts: Tensor) -> Tensor:
        """float32 [K] raw logits, as ``RetrievalFamily.match`` gives them.

        Args:
            features: ``see``'s, of one image.
            texts: int64 [K], places among the texts that it was made with.
        """


class WholeMatching(Matching):
    """Matching by both logits of each pair."""

    @abstractmethod
    def logits(self, features: Batch, texts: Tensor) -> Tensor:
        """[K, 2] of "it doesn't match" and "it matches"; arguments as ``scores``."""

    def scores(self, features: Batch, texts: Tensor) -> Tensor:
        return self.logits(features, texts)[:, 1].float()

    def log_odds(self, features: Batch, texts: Tensor) -> Tensor:
        """float32 [K], how much likelier "it matches" is than "it doesn't", in nats: what a filter decides by."""
        doesnt, does = self.logits(features, texts).float().unbind(1)
        return does - doesnt


class PlainMatching(WholeMatching):
    """By ``match_logits``, a batch of padded texts at a time."""

    def __init__(self, family: RetrievalFamily, texts: Sequence[str], batch_size: int = 64):
        self.family, self.texts, self.batch_size = family, list(texts), batch_size

    @torch.no_grad()
    def logits(self, features: Batch, texts: Tensor) -> Tensor:
        found = [
            self.family.match_logits(
                features,
                self.family.encode_texts([self.texts[place] for place in places.tolist()]),
                torch.zeros(len(places), dtype=torch.int64, device=self.family.device),
            )
            for places in torch.split(texts, self.batch_size)
        ]
        return torch.cat(found) if found else torch.zeros(0, 2, device=self.family.device)
