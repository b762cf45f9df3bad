"""METEOR 1.5's second normalisation of tokens (its option ``-norm``), found by asking it.

It follows the well-known tokenizer of Moses: symbols stand alone, hyphens inside words split, apostrophes split, dots
of acronyms are dropped, and a dot stays with its word before a small letter.
"""

from __future__ import annotations

import re
from collections.abc import Set
from functools import cache

#: Letters to METEOR; every other letter stands alone.
_LETTER = r"A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u017e\u0400-\u0527\u1d00-\u1d7f\ua640-\ua66e\ua67e-\ua697"
_PLAIN = re.compile(r"[a-z ]*")
_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "`": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-"})
_STEPS = [
    (re.compile(pattern), to)
    for pattern, to in (
        (r"''", '"'),
        (r"--", "-"),
        (rf"([^{_LETTER}0-9\s.'\-,])", r" \1 "),
        (rf"([{_LETTER}0-9.])-([{_LETTER}0-9])", r"\1 \2"),
        (r"(\.{2,})", r" \1 "),
        (r"([^0-9]),([^0-9])", r"\1 , \2"),
        (r"([0-9]),([^0-9])", r"\1 , \2"),
        (r"([^0-9]),([0-9])", r"\1 , \2"),
        (rf"([^{_LETTER}])'([^{_LETTER}])", r"\1 ' \2"),
        (rf"([^{_LETTER}0-9])'([{_LETTER}])", r"\1 ' \2"),
        (rf"([{_LETTER}])'([^{_LETTER}])", r"\1 ' \2"),
        (rf"([{_LETTER}])'([{_LETTER}])", r"\1 '\2"),
        (r"([0-9])'(s)", r"\1 '\2"),
    )
]
_HAS_LETTER = re.compile(rf"[{_LETTER}]")


def normalise(tokens: str, prefixes: Set[str]) -> list[str]:
    """The words that METEOR sees.

    Args:
        tokens: a tokenised caption, lower-case.
        prefixes: abbreviations that keep their dot before anything.
    """
    if _PLAIN.fullmatch(tokens):
        return tokens.split()
    text = f" {tokens.translate(_QUOTES)} "
    for pattern, to in _STEPS:
        text = pattern.sub(to, text)
    words = text.split()
    found = []
    for position, word in enumerate(words):
        if not word.endswith(".") or not word.strip("."):
            found.append(word)
            continue
        stem = word[:-1]
        after = words[position + 1] if position + 1 < len(words) else ""
        if "." in stem and _HAS_LETTER.search(stem):
            found.append(stem.replace(".", ""))
        elif stem in prefixes or "a" <= after[:1] <= "z":
            found.append(word)
        else:
            found.extend((stem, "."))
    return found


@cache
def prefixes(text: str) -> frozenset[str]:
    """The abbreviations in the text of METEOR's file of them; the ones for numbers only, and comments, left out."""
    lines = (line.strip() for line in text.splitlines())
    return frozenset(line for line in lines if line and not line.startswith("#") and "#" not in line)
