"""The mean over images of nltk's sentence BLEU-4, with four of its smoothings. Not comparable with COCO's BLEU-4.

Several captioning projects report one of them as "BLEU-4": nltk's ``sentence_bleu(references, caption,
smoothing_function=SmoothingFunction().method1)`` (or 2, 3, 4; Chen and Cherry 2014), averaged over captions. A caption
without any word of the references scores 0; where longer n-grams find nothing, the smoothings differ:

1. a count of 0 is taken as 0.1; 2. one is added to every count above single words; 3. the first order without a match
counts 1/2, the next 1/4, …; 4. the same, times the logarithm of the caption's length over 5.

Which tokens are counted matters as much: the usual tokenizer's, or lower-case words split at white space
(``tokens = "split"``), where "dog." is not "dog".
"""

from __future__ import annotations

import math
from collections import Counter
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field

from cutline.core.config import Section
from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, MeanMetric, References

_EPSILON = 0.1
_K = 5
Grams = Counter[tuple[str, ...]]


class Bleu4NltkSettings(Section):
    tokens: Literal["ptb", "split"] = Field(
        "ptb", description='"ptb": the tokens of the other scores; "split": lower-case words split at white space'
    )


class Bleu4Nltk(MeanMetric):
    settings_type = Bleu4NltkSettings
    scores = tuple(
        ScoreInfo(
            f"bleu4_nltk_smooth{n}",
            f"BLEU-4 (nltk, smoothing {n})",
            f"The sentence BLEU-4 of nltk with smoothing method {n}, averaged over images; not COCO's BLEU-4.",
        )
        for n in (1, 2, 3, 4)
    )
    version = 2  # 1 split at white space

    def __init__(self, references: References, settings: Bleu4NltkSettings | None = None):
        super().__init__(references)
        self._splits = (settings or Bleu4NltkSettings()).tokens == "split"

    @cached_property
    def _known(self) -> list[tuple[list[int], list[Grams]]]:
        """For each image the references' lengths, and the most that one of them has of each n-gram, by order."""
        tokens = iter(self.references.tokens if not self._splits else ())
        known = []
        for texts in self.references.captions:
            words = [(text.lower() if self._splits else next(tokens)).split() for text in texts]
            most = []
            for k in range(1, 5):
                together: Grams = Counter()
                for some in words:
                    together |= _grams(some, k)
                most.append(together)
            known.append(([len(some) for some in words], most))
        return known

    def values(self, candidates: Candidates) -> Floats:
        texts = [caption.lower() for caption in candidates.captions] if self._splits else candidates.tokens
        rows = [_sentence(text.split(), *known) for text, known in zip(texts, self._known, strict=True)]
        return np.array(rows)

    def facts(self) -> dict[str, str]:
        tokens = {"tok": "split", "case": "lower"} if self._splits else {}
        return {**tokens, "smooth": "nltk", "mean": "images"}


def _grams(words: list[str], k: int) -> Grams:
    return Counter(zip(*(words[i:] for i in range(k)), strict=False))


def _sentence(words: list[str], lengths: list[int], most: list[Grams]) -> list[float]:
    """BLEU-4 of one caption with each smoothing."""
    right, all_ = [], []
    for k in range(1, 5):
        mine = _grams(words, k)
        right.append(sum(min(count, most[k - 1][gram]) for gram, count in mine.items()))
        all_.append(max(1, len(words) - k + 1))
    if not right[0]:
        return [0.0] * 4
    closest = min(lengths, key=lambda length: (abs(length - len(words)), length))
    brevity = min(0.0, 1 - closest / len(words))
    added = [(r + (k > 0)) / (a + (k > 0)) for k, (r, a) in enumerate(zip(right, all_, strict=True))]
    first, third, fourth = [], [], []
    failed = 0
    for r, a in zip(right, all_, strict=True):
        failed += not r
        first.append((r or _EPSILON) / a)
        third.append(r / a if r else 1 / (2**failed * a))
        fourth.append(r / a if r else math.log(len(words)) / (2**failed * _K * a))
    # nltk leaves an order of 0 out of the mean (only the fourth smoothing, for a single word)
    return [math.exp(sum(math.log(p) for p in some if p) / 4 + brevity) for some in (first, added, third, fourth)]
