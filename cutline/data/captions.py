"""Tidying captions: whitespace only; words, case and punctuation stay as people wrote them."""

from __future__ import annotations

import unicodedata

#: What tables write for "nothing"; as a whole caption it means nothing else.
_NOTHING = ("nan", "none", "null", "n/a", "<na>")


def tidy(caption: str) -> str:
    """One line, single spaces, no control characters or zero-width marks; "" when nothing is left."""
    if not caption.isascii() or not caption.isprintable():
        caption = "".join(" " if char.isspace() else char for char in caption if _is_kept(char))
    caption = " ".join(caption.split())
    return "" if caption.lower() in _NOTHING else caption


def _is_kept(char: str) -> bool:
    return char.isspace() or (char not in "\u200b\ufeff\u2060" and unicodedata.category(char) not in ("Cc", "Cs"))
