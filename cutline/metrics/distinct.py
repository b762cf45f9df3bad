"""How varied the captions are as a set: distinct-1 and distinct-2, and the number of different words.

Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models": different n-grams over all
n-grams. Both fall as captions are added, so compare equal numbers of captions only.

The number of times that an n-gram occurs among all captions stays fixed when images are resampled (as CIDEr's document
frequencies do): of an n-gram that occurs k times each occurrence counts 1/k, so that the sum is the number of different
n-grams.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, Metric, ratio


class Distinct(Metric):
    """Statistics an image: its share of the different words and pairs of words, and its words and pairs."""

    scores = (
        ScoreInfo("distinct1", "Distinct-1", "Different words divided by all words, over all captions.", unit="share"),
        ScoreInfo(
            "distinct2", "Distinct-2", "Different pairs of words divided by all pairs, over all captions.", unit="share"
        ),
        ScoreInfo("vocabulary", "Vocabulary", "Number of different words in all captions.", unit="words"),
    )
    compares = False

    def statistics(self, candidates: Candidates) -> Floats:
        rows = np.zeros((len(candidates.captions), 4))
        captions = [tokens.split() for tokens in candidates.tokens]
        for k in range(2):
            grams = [list(zip(words, words[k:], strict=False)) if k else words for words in captions]
            often = Counter(gram for some in grams for gram in some)
            rows[:, k] = [sum(1 / often[gram] for gram in some) for some in grams]
            rows[:, 2 + k] = [len(some) for some in grams]
        return rows

    def reduce(self, sums: Floats) -> Floats:
        shares = np.nan_to_num(ratio(sums[..., :2], sums[..., 2:]))
        return np.concatenate([shares, sums[..., :1]], axis=-1)
