"""Suggestions for misspelt words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice most similar to a word; None when none is similar."""
    return next(iter(difflib.get_close_matches(word, [*choices], n=1, cutoff=0.5)), None)


def did_you_mean(word: str, choices: Iterable[str], otherwise: str, form: str = "{}") -> str:
    """The remedy for an unknown word: "Did you mean x?", or another sentence when no choice is similar.

    Args:
        form: how the choice is shown: ``"[{}]"``.
    """
    near = nearest(word, choices)
    return otherwise if near is None else f"Did you mean {form.format(near)}?"
