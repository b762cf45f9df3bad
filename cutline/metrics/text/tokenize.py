"""Captions into tokens.

A tokenizer takes *all* captions of one side in their order, because the reference tokenizer sees them as one text, and
gives each caption back as one string of tokens with single spaces between them, punctuation dropped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from cutline.metrics.text.ptb import PtbTokenizer


class Tokenizer(Protocol):
    """Attributes: ``name`` stands in every signature and changes when a token could; ``case`` is "lower" or "kept"."""

    @property
    def name(self) -> str: ...

    @property
    def case(self) -> str: ...

    def __call__(self, captions: Sequence[str]) -> list[str]:
        """As many strings as captions; tokens with single spaces between them."""
        ...


class Pretokenized:
    """Captions that are tokens already, with spaces between them."""

    name = "none"
    case = "kept"

    def __call__(self, captions: Sequence[str]) -> list[str]:
        return list(captions)


class NewsTokenizer:
    """The news protocol's words: punctuation (``[^\\w\\s]``) taken out, case kept, split at white space.

    Tran, Mathews and Xie 2020, "Transform and Tell"; its scores are COCO's BLEU, ROUGE-L and CIDEr over these.
    """

    name = "news-1"
    case = "kept"

    def __call__(self, captions: Sequence[str]) -> list[str]:
        return [" ".join(re.sub(r"[^\w\s]", "", caption).split()) for caption in captions]


def default() -> Tokenizer:
    """The tokenizer used where none is given."""
    return PtbTokenizer()
