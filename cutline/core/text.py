"""Words of a text."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+")


def split_words(text: str) -> list[str]:
    """Runs of letters, digits and underscores, in lower case."""
    return _WORD.findall(text.lower())
