"""Training examples: images with one or more of their captions, and how they become batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch.utils.data import Dataset, Sampler

from cutline.families.base import Batch, Family
from cutline.features import FeatureCache
from cutline.records import Sample


class Examples(Dataset[Sample]):
    """One example for each image and ``captions_per_image`` of its captions; an epoch sees every pair once.

    Args:
        samples: images with at least one caption each.
        captions_per_image: captions that an example holds, or "all" for one example an image.
    """

    def __init__(self, samples: Sequence[Sample], captions_per_image: int | Literal["all"]):
        self.samples = samples
        self._places: list[tuple[int, int, int]] = []  # sample, first caption, end
        for number, sample in enumerate(samples):
            count = len(sample.captions)
            size = count if captions_per_image == "all" else captions_per_image
            self._places += [(number, first, min(first + size, count)) for first in range(0, count, size)]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        number, first, end = self._places[index]
        sample = self.samples[number]
        return replace(sample, captions=sample.captions[first:end], extra={"place": number})


class Collator:
    """Examples → a batch with targets; cached features instead of pixels where there is a cache.

    ``places`` [N] says which samples the images are.
    """

    def __init__(self, family: Family, cache: FeatureCache | None):
        self.family = family
        self.cache = cache

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        features = self.cache.get(samples) if self.cache else None
        batch = self.family.encode(samples, with_targets=True, features=features)
        return batch | {"places": torch.tensor([sample.extra.get("place", -1) for sample in samples])}


class EpochShuffle(Sampler[int]):
    """An order that depends on seed and epoch alone, so a resumed epoch goes on in the order that it began with."""

    def __init__(self, size: int, seed: int):
        self.size, self.seed, self.epoch = size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        yield from torch.randperm(self.size, generator=generator).tolist()

    def __len__(self) -> int:
        return self.size
