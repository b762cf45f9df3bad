"""CIDEr-D of single captions, as a reward while training."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from cutline.core.records import Sample
from cutline.metrics.text.tokenize import default

#: CIDEr-D's n-gram orders and the width of its penalty on length (see ``cutline/metrics/cider.py``).
ORDERS, SIGMA = 4, 6.0

Grams = Counter[tuple[str, ...]]


class CiderReward:
    """CIDEr-D of single captions against the references of a training image.

    ``cutline/metrics/cider.py`` scores one caption for each of all images at once; here it is several captions for the
    few images of a step. The document frequencies are those of all training images. The values are the same.

    Args:
        samples: all training samples with all their captions.
    """

    def __init__(self, samples: Sequence[Sample]):
        self._tokenize = default()
        texts = [caption for sample in samples for caption in sample.captions]
        tokens = iter([line.split() for line in self._tokenize(texts)])
        by_image = [[_grams(next(tokens)) for _ in sample.captions] for sample in samples]
        frequency: Counter[tuple[str, ...]] = Counter()
        for references in by_image:
            frequency.update({gram for grams in references for gram in grams})
        self._images = math.log(len(samples))
        self._idf = {gram: self._images - math.log(count) for gram, count in frequency.items()}
        self._references = {
            sample.id: [self._vector(grams) for grams in references]
            for sample, references in zip(samples, by_image, strict=True)
        }

    def __call__(self, samples: Sequence[Sample], captions: Sequence[str]) -> list[float]:
        """The CIDEr-D of each caption against the references of the sample beside it."""
        rewards = []
        for sample, line in zip(samples, self._tokenize(captions), strict=True):
            vector = self._vector(_grams(line.split()))
            references = self._references[sample.id]
            rewards.append(10.0 * sum(_similarity(vector, reference) for reference in references) / len(references))
        return rewards

    def _vector(self, grams: Grams) -> tuple[list[dict[tuple[str, ...], float]], list[float], int]:
        """tf-idf weights by order, their norms, and the length in bigrams."""
        weights: list[dict[tuple[str, ...], float]] = [{} for _ in range(ORDERS)]
        for gram, count in grams.items():
            weights[len(gram) - 1][gram] = count * self._idf.get(gram, self._images)
        norms = [math.sqrt(sum(w * w for w in order.values())) for order in weights]
        return weights, norms, sum(count for gram, count in grams.items() if len(gram) == 2)


def _grams(words: Sequence[str]) -> Grams:
    return Counter(tuple(words[at : at + n]) for n in range(1, ORDERS + 1) for at in range(len(words) - n + 1))


def _similarity(
    candidate: tuple[list[dict[tuple[str, ...], float]], list[float], int],
    reference: tuple[list[dict[tuple[str, ...], float]], list[float], int],
) -> float:
    penalty = math.exp(-((candidate[2] - reference[2]) ** 2) / (2 * SIGMA**2))
    total = 0.0
    for mine, theirs, norm, other in zip(candidate[0], reference[0], candidate[1], reference[1], strict=True):
        if norm and other:
            shared = mine.keys() & theirs.keys()
            total += sum(min(mine[gram], theirs[gram]) * theirs[gram] for gram in shared) / (norm * other)
    return total / ORDERS * penalty
