"""ROUGE-L as coco-caption computes it.

Lin 2004; pycocoevalcap 1.2, ``rouge/rouge.py``: the longest common subsequence of candidate and reference in words; the
best precision and the best recall over an image's references, taken separately; F with beta 1.2; the mean over images.

All pairs go through the bit-parallel recurrence of Hyyrö (2004) at once: one 64-bit word a pair, one step a reference
word. Captions that don't fit (more than 64 words, or a no-break space inside a token, which coco-caption counts as part
of the word here and as a separator elsewhere) take the same recurrence one by one on Python's integers.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, MeanMetric

_BETA = 1.2
_WORD = 64


class RougeL(MeanMetric):
    scores = (
        ScoreInfo(
            "rouge_l",
            "ROUGE-L",
            "Longest sequence of words that caption and references have in the same order, as an F score.",
        ),
    )

    @cached_property
    def _steps(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
        """References by falling length [R]; how many have a j-th word [L]; their words' pairs, step by step [W]."""
        index = self.references.ngrams
        assert index.orders  # fills pair_of_word
        order = np.argsort(-index.lengths, kind="stable")
        length = index.lengths[order]
        start = (np.cumsum(index.lengths) - index.lengths)[order]
        alive = np.searchsorted(-length, -np.arange(int(length.max(initial=0))), side="left")
        words = [index.pair_of_word[start[:many] + j] for j, many in enumerate(alive.tolist())]
        return order, alive, np.concatenate(words) if words else np.zeros(0, np.int32)

    @cached_property
    def _odd_references(self) -> NDArray[np.bool_]:
        """bool [n]: images with a reference that splits differently by spaces and by white space."""
        tokens = self.references.tokens
        odd = np.fromiter((not t or (not t.isascii() and _is_odd(t)) for t in tokens), np.bool_, len(tokens))
        return np.logical_or.reduceat(odd, self.references.ngrams.start)

    def values(self, candidates: Candidates) -> Floats:
        index, ngrams = self.references.ngrams, candidates.ngrams
        common = self._common(candidates).astype(np.float64)
        mine = np.maximum(ngrams.lengths, 1)[index.image_of]
        precision = np.maximum.reduceat(common / mine, index.start)
        recall = np.maximum.reduceat(common / np.maximum(index.lengths, 1), index.start)
        odd = self._odd_references | (ngrams.lengths > _WORD)
        odd |= np.fromiter((not t.isascii() and _is_odd(t) for t in candidates.tokens), np.bool_, index.images)
        for image in np.flatnonzero(odd).tolist():
            begin = int(index.start[image])
            texts = self.references.tokens[begin : begin + int(index.per_image[image])]
            precision[image], recall[image] = _slowly(candidates.tokens[image], texts)
        return _f(precision, recall)[:, None]

    def _common(self, candidates: Candidates) -> NDArray[np.int64]:
        """int64 [R]: words that a reference and its image's candidate have in common in the same order."""
        index, ngrams = self.references.ngrams, candidates.ngrams
        order, alive, pairs = self._steps
        image = np.repeat(np.arange(index.images), ngrams.lengths)
        position = np.arange(len(ngrams.words)) - np.repeat(np.cumsum(ngrams.lengths) - ngrams.lengths, ngrams.lengths)
        known = np.flatnonzero((ngrams.words < len(index.vocabulary)) & (position < _WORD))
        first = index.orders[0]
        hit, pair = first.find(ngrams.words[known], image[known])
        masks = np.zeros(len(first.image), np.uint64)  # bit i: the candidate's word i is this word of this image
        np.bitwise_or.at(masks, pair, np.uint64(1) << position[known[hit]].astype(np.uint64))
        ones = np.full(len(index.lengths), np.uint64(0xFFFFFFFFFFFFFFFF))
        step = 0
        for many in alive.tolist():
            row = ones[:many]
            both = row & masks[pairs[step : step + many]]
            row[:] = (row + both) | (row - both)
            step += many
        common = np.empty(len(ones), np.int64)
        common[order] = _WORD - np.bitwise_count(ones).astype(np.int64)
        return common

    def facts(self) -> dict[str, str]:
        return {"beta": str(_BETA)}


def _f(precision: Floats, recall: Floats) -> Floats:
    below = recall + _BETA**2 * precision
    both = (precision != 0) & (recall != 0)
    return np.divide((1 + _BETA**2) * precision * recall, below, out=np.zeros_like(precision), where=both)


def _is_odd(tokens: str) -> bool:
    return tokens.split() != tokens.split(" ")


def _slowly(candidate: str, references: list[str]) -> tuple[float, float]:
    """Best precision and best recall, words separated by single spaces; "" is one empty word, as in the reference."""
    words = candidate.split(" ")
    masks: dict[str, int] = {}
    for position, word in enumerate(words):
        masks[word] = masks.get(word, 0) | 1 << position
    every = (1 << len(words)) - 1
    precision = recall = 0.0
    for reference in references:
        others = reference.split(" ")
        row = every
        for word in others:
            both = row & masks.get(word, 0)
            row = ((row + both) | (row - both)) & every
        common = len(words) - row.bit_count()
        precision, recall = max(precision, common / len(words)), max(recall, common / len(others))
    return precision, recall
