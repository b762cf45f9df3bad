"""The mean over images of nltk's sentence BLEU-4 with smoothing method 1. Not comparable with COCO's BLEU-4.

Several captioning projects report it as "BLEU-4". nltk's ``sentence_bleu(references, caption, smoothing_function=
SmoothingFunction().method1)`` on lower-case words split at white space: a count of 0 is taken as 0.1, a caption without
any word of the references scores 0.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import cached_property

import numpy as np

from cutline.metrics.base import Candidates, Floats, MeanMetric

SCORES = ("bleu4_nltk_smooth1",)

_EPSILON = 0.1
Grams = Counter[tuple[str, ...]]


class Bleu4NltkSmooth1(MeanMetric):
    scores = SCORES
    uses_tokens = False

    @cached_property
    def _known(self) -> list[tuple[list[int], list[Grams]]]:
        """For each image the references' lengths, and the most that one of them has of each n-gram, by order."""
        known = []
        for texts in self.references.captions:
            words = [text.lower().split() for text in texts]
            most = []
            for k in range(1, 5):
                together: Grams = Counter()
                for some in words:
                    together |= _grams(some, k)
                most.append(together)
            known.append(([len(some) for some in words], most))
        return known

    def values(self, candidates: Candidates) -> Floats:
        rows = [
            _sentence(caption.lower().split(), lengths, most)
            for caption, (lengths, most) in zip(candidates.captions, self._known, strict=True)
        ]
        return np.array(rows)[:, None]

    def facts(self) -> dict[str, str]:
        return {"tok": "split", "case": "lower", "smooth": "method1", "mean": "images"}


def _grams(words: list[str], k: int) -> Grams:
    return Counter(zip(*(words[i:] for i in range(k)), strict=False))


def _sentence(words: list[str], lengths: list[int], most: list[Grams]) -> float:
    total = 0.0
    for k in range(1, 5):
        mine = _grams(words, k)
        right = sum(min(count, most[k - 1][gram]) for gram, count in mine.items())
        if k == 1 and not right:
            return 0.0
        total += math.log((right or _EPSILON) / max(1, len(words) - k + 1)) / 4
    closest = min(lengths, key=lambda length: (abs(length - len(words)), length))
    return math.exp(total + (min(0.0, 1 - closest / len(words))))
