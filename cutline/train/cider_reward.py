"""CIDEr-D of sampled captions, as a reward while training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cutline.core.records import Sample
from cutline.metrics.cider import cider_d
from cutline.metrics.text.ngrams import ReferenceNgrams
from cutline.metrics.text.tokenize import default


class CiderReward:
    """CIDEr-D of several captions for each of a step's images.

    The document frequencies are those of all training images, which are indexed once.

    Args:
        samples: all training samples with all their captions.
    """

    def __init__(self, samples: Sequence[Sample]):
        self._tokenize = default()
        tokens = self._tokenize([caption for sample in samples for caption in sample.captions])
        self._index = ReferenceNgrams(tokens, np.array([len(sample.captions) for sample in samples], np.int64))
        self._position = {sample.id: position for position, sample in enumerate(samples)}

    def __call__(self, samples: Sequence[Sample], captions: Sequence[str]) -> list[float]:
        """The CIDEr-D of each caption against the references of the sample with the same index."""
        images = [self._position[sample.id] for sample in samples]
        rewards: list[float] = cider_d(self._index.join(self._tokenize(captions), images)).tolist()
        return rewards
