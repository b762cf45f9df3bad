"""Which word a misspelt one was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that is most like a word; None when none is alike."""
    return next(iter(difflib.get_close_matches(word, [*choices], n=1, cutoff=0.5)), None)


def did_you_mean(word: str, choices: Iterable[str], otherwise: str, form: str = "{}") -> str:
    """The remedy for an unknown word: "Did you mean x?", or another sentence when no choice is like it.

    Args:
        form: how the choice is shown: ``"[{}]"``.
    """
    near = nearest(word, choices)
    return otherwise if near is None else f"Did you mean {form.format(near)}?"
