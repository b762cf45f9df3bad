"""How BLIP and BLIP-2 clean the texts that they rank."""

from __future__ import annotations

import re


def clean(text: str, words: int) -> str:
    """A text as the published evaluations have it: in lower case, without . ! " ( ) * # : ; ~, cut short."""
    text = re.sub(r"[.!\"()*#:;~]", " ", text.lower())
    return " ".join(text.split()[:words])
