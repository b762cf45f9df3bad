"""Families that put images and texts into one space, for retrieval; some also read a text and an image together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cutline.families.base import Batch, Family
from cutline.families.common.loss import widened
from cutline.families.common.matching import WholeMatching


class RetrievalFamily(Family):
    """Texts of these families are ``input_ids`` and, but for some, ``attention_mask`` [M, L]; images are pixels, or
    ``features`` as ``encode_images`` gives them. Nothing here is scaled by a temperature: similarities are cosines."""

    tasks = frozenset({"embed"})
    #: The contrastive loss that the family was trained with: over all candidates at once, or pair by pair.
    contrast: ClassVar[Literal["softmax", "sigmoid"]] = "softmax"

    @property
    @abstractmethod
    def text_tokens(self) -> int:
        """Tokens that a text is cut to, its start and end included."""

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> Batch:
        """Texts → a batch, cleaned and cut as the family's published evaluation does."""

    @abstractmethod
    def embed_images(self, batch: Batch) -> Tensor:
        """Pixels or features of N images → unit vectors [N, E]; where a family has several an image, [N, Q, E]."""

    @abstractmethod
    def embed_texts(self, texts: Batch) -> Tensor:
        """M texts → unit vectors [M, E]."""

    @staticmethod
    def similarity(images: Tensor, texts: Tensor) -> Tensor:
        """Cosines [N, M] of images [N, E] or [N, Q, E] with texts [M, E]; of several vectors the best one counts."""
        return images @ texts.T if images.ndim == 2 else (images @ texts.T).amax(1)

    def scale(self) -> tuple[Tensor, Tensor | None] | None:
        """What a contrastive loss multiplies cosines by, and adds to them where anything is added, as the model has
        learnt it; None for models that keep no such number."""
        return None

    def bound_scale(self) -> None:
        """Keeps the learnt scale within the published bounds, where there are any; for between two steps."""

    def match_logits(self, features: Batch, texts: Batch, images: Tensor) -> Tensor:
        """Image–text matching of P pairs, from text and image read together.

        Args:
            features: ``encode_images``'s, or pixels, of N images.
            texts: P texts.
            images: int64 [P], the image of each text.

        Returns:
            [P, 2], the logits of "it doesn't match" and "it matches".
        """
        raise self._unable("match")

    def matching(self, texts: Sequence[str]) -> WholeMatching:
        """What scores these texts with one image after another, in the fastest way that the family has."""
        self.require("match")
        return PlainMatching(self, texts)

    def tokenize(self, texts: Sequence[str], padding: str = "longest") -> Batch:
        """Texts with the tokenizer's special tokens, cut to ``text_tokens``, padded on the right.

        Args:
            texts: cleaned already.
            padding: "longest", or "max_length" for models that read the last position, padding or not.
        """
        tokens = self.tokenizer(
            list(texts),
            padding=padding,
            truncation=True,
            max_length=self.text_tokens,
            padding_side="right",
            return_attention_mask=True,
            return_tensors="pt",
        )
        return {name: tokens[name].to(self.device) for name in ("input_ids", "attention_mask")}


def as_embedder(family: Family) -> RetrievalFamily:
    """A family that was opened for embedding.

    Raises:
        CheckpointError: it can't embed images and texts, or was never trained to.
    """
    family.require("embed")
    assert isinstance(family, RetrievalFamily)  # what can embed is one
    return family


def unit(vectors: Tensor) -> Tensor:
    """Vectors of length 1, in float32 or what is wider: half precision would be felt in a ranking."""
    return F.normalize(widened(vectors), dim=-1)


class PlainMatching(WholeMatching):
    """By ``match_logits``, a batch of padded texts at a time."""

    def __init__(self, family: RetrievalFamily, texts: Sequence[str], batch_size: int = 64):
        self.family, self.texts, self.batch_size = family, list(texts), batch_size

    @torch.no_grad()
    def logits(self, features: Batch, texts: Tensor) -> Tensor:
        logits = [
            self.family.match_logits(
                features,
                self.family.encode_texts([self.texts[index] for index in indices.tolist()]),
                torch.zeros(len(indices), dtype=torch.int64, device=self.family.device),
            )
            for indices in torch.split(texts, self.batch_size)
        ]
        return torch.cat(logits) if logits else torch.zeros(0, 2, device=self.family.device)
