"""ROUGE-1, -2 and -L F1 as Google's ``rouge_score`` (and Hugging Face ``evaluate``) computes them, without stemming.

Not coco-caption's ROUGE-L: other tokens (runs of a-z and 0-9), F with beta 1, the best reference by F, the mean over
images.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cached_property

import numpy as np

from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, MeanMetric

_WORD = re.compile("[a-z0-9]+")


class RougeF1(MeanMetric):
    scores = (
        ScoreInfo("rouge1_f1", "ROUGE-1 F1", "F1 of single words, as Google's rouge_score computes it."),
        ScoreInfo("rouge2_f1", "ROUGE-2 F1", "F1 of pairs of words, as Google's rouge_score computes it."),
        ScoreInfo(
            "rougeL_f1",
            "ROUGE-L F1",
            "F1 of the longest common sequence of words, as Google's rouge_score computes it.",
        ),
    )
    uses_tokens = False

    @cached_property
    def _words(self) -> list[list[list[str]]]:
        return [[_WORD.findall(text.lower()) for text in texts] for texts in self.references.captions]

    def values(self, candidates: Candidates) -> Floats:
        rows = np.zeros((len(candidates.captions), 3))
        for image, (caption, references) in enumerate(zip(candidates.captions, self._words, strict=True)):
            candidate = _WORD.findall(caption.lower())
            rows[image] = np.max([_scores(candidate, words) for words in references], axis=0)
        return rows

    def facts(self) -> dict[str, str]:
        return {"tok": "rouge_score", "case": "lower", "stem": "no", "beta": "1", "refs_by": "best"}


def _scores(candidate: list[str], reference: list[str]) -> tuple[float, float, float]:
    found = []
    for k in (1, 2):
        a = Counter(zip(*(candidate[i:] for i in range(k)), strict=False))
        b = Counter(zip(*(reference[i:] for i in range(k)), strict=False))
        found.append(_f1((a & b).total(), a.total(), b.total()))
    return found[0], found[1], _f1(common_subsequence(candidate, reference), len(candidate), len(reference))


def _f1(common: int, candidate: int, reference: int) -> float:
    return 2 * common / (candidate + reference) if common else 0.0


def common_subsequence(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence (Hyyrö 2004, on Python's integers)."""
    masks: dict[str, int] = {}
    for position, word in enumerate(a):
        masks[word] = masks.get(word, 0) | 1 << position
    every = (1 << len(a)) - 1
    row = every
    for word in b:
        both = row & masks.get(word, 0)
        row = ((row + both) | (row - both)) & every
    return len(a) - row.bit_count()
