"""Captions into tokens.

A tokenizer takes *all* captions of one side in their order, because the reference tokenizer sees them as one text, and
gives each caption back as one string of tokens with single spaces between them, punctuation dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cutline.metrics.ptb import PtbTokenizer


class Tokenizer(Protocol):
    """Attributes: ``name`` stands in every signature and changes when a token could."""

    @property
    def name(self) -> str: ...

    def __call__(self, captions: Sequence[str]) -> list[str]:
        """As many strings as captions; tokens with single spaces between them."""
        ...


class Pretokenized:
    """Captions that are tokens already, with spaces between them."""

    name = "none"

    def __call__(self, captions: Sequence[str]) -> list[str]:
        return list(captions)


def default() -> Tokenizer:
    """The tokenizer used where none is given."""
    return PtbTokenizer()
