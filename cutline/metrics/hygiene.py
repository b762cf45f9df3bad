"""Captions that are visibly wrong: the shares that are empty, that loop, and that were cut off at the length limit.

A failed image has no caption and counts as empty. ``unfinished`` is known only where the predictions say whether the
model ended by itself, and counts images with a caption.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, Metric, ratio

_LONGEST_PHRASE = 12


class Hygiene(Metric):
    """Statistics an image: empty, repeated, 1, unfinished, known to be finished or not."""

    scores = (
        ScoreInfo("empty", "Empty", "Share of images without a caption.", unit="share", higher_is_better=False),
        ScoreInfo(
            "repeated",
            "Repeated",
            "Share of captions that repeat a phrase over and over.",
            unit="share",
            higher_is_better=False,
        ),
        ScoreInfo(
            "unfinished",
            "Unfinished",
            "Share of captions that were cut off at the length limit.",
            unit="share",
            higher_is_better=False,
        ),
    )
    compares = False
    unknown: ClassVar[Mapping[str, str]] = {
        "unfinished": "only predictions.jsonl records whether a caption ended by itself"
    }

    def statistics(self, candidates: Candidates) -> Floats:
        statistics = np.zeros((len(candidates.captions), 5))
        for image, tokens in enumerate(candidates.tokens):
            statistics[image, :3] = not candidates.captions[image].strip(), loops(tokens.split()), 1
        for image, prediction in enumerate(candidates.predictions or ()):
            if prediction.status == "ok" and prediction.caption is not None:
                statistics[image, 3:] = not prediction.finished, 1
        return statistics

    def reduce(self, sums: Floats) -> Floats:
        shares = ratio(sums[..., :2], sums[..., 2:3])
        return np.concatenate([shares, ratio(sums[..., 3:4], sums[..., 4:5])], axis=-1)


def loops(words: list[str]) -> bool:
    """Whether a phrase of up to 12 words follows itself: one or two words three times, longer ones twice."""
    if len(set(words)) == len(words):  # nearly every caption without a loop takes a longer way; most are short
        return False
    for size in range(1, min(_LONGEST_PHRASE, len(words) // 2) + 1):
        needed = size * (2 if size <= 2 else 1)  # equal neighbours at that distance, in a row
        run = 0
        for word, other in zip(words, words[size:], strict=False):
            run = run + 1 if word == other else 0
            if run >= needed:
                return True
    return False
