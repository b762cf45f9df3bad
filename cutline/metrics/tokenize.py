"""Captions into tokens.

A tokenizer takes *all* captions of one side in their order, because the reference tokenizer sees them as one text, and
gives each caption back as one string of tokens with single spaces between them, punctuation dropped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

#: Tokens that coco-caption drops after tokenising (pycocoevalcap, ``tokenizer/ptbtokenizer.py``).
PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-lrb-", "-rrb-", "-lcb-", "-rcb-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)


class Tokenizer(Protocol):
    """Attributes: ``name`` stands in every signature and changes when a token could."""

    @property
    def name(self) -> str: ...

    def __call__(self, captions: Sequence[str]) -> list[str]:
        """As many strings as captions; tokens with single spaces between them."""
        ...


class PlainTokenizer:
    """Lower case, words and contractions by one regular expression, punctuation dropped. Not COCO's tokenizer."""

    name = "plain-1"
    _token = re.compile(r"n't\b|'(?:s|m|d|re|ve|ll)\b|\w+?(?=n't\b)|\w+(?:[-.]\w+)*|[^\w\s]")

    def __call__(self, captions: Sequence[str]) -> list[str]:
        find = self._token.findall
        return [" ".join([t for t in find(caption.lower()) if t not in PUNCTUATION]) for caption in captions]


class Pretokenized:
    """Captions that are tokens already, with spaces between them."""

    name = "none"

    def __call__(self, captions: Sequence[str]) -> list[str]:
        return list(captions)


def default() -> Tokenizer:
    """The tokenizer used where none is given."""
    return PlainTokenizer()
