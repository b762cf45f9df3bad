"""Scoring many pairs of images and texts, one image at a time: what every way of doing it offers."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from cutline.families.base import Batch


class Matching(ABC):
    """The matching scores of one image with any of M texts, which are prepared once."""

    @abstractmethod
    def scores(self, features: Batch, texts: Tensor) -> Tensor:
        """float32 [K] raw logits, of "it matches".

        Args:
            features: ``encode_images``'s, of one image.
            texts: int64 [K], indices into the M texts.
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


def split_heads(hidden: Tensor, heads: int) -> Tensor:
    """[…, L, D] → […, H, L, D/H]"""
    return hidden.view(*hidden.shape[:-1], heads, -1).transpose(-3, -2)


def join_heads(hidden: Tensor) -> Tensor:
    """[…, H, L, D/H] → […, L, D]"""
    return hidden.transpose(-3, -2).flatten(-2)
