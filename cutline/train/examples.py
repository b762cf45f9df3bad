"""Training examples: images with one or more of their captions, and how they become batches."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch.utils.data import Dataset, Sampler

from cutline.core.records import Sample
from cutline.families.base import Batch, Family
from cutline.families.common.feature_cache import FeatureCache
from cutline.images.open import MIRRORED

#: What an index of an example says besides its place, as bits.
_MIRROR, _BARE = 1, 2

#: Keys of a training batch that the model does not see: which samples its images are, and how they were changed.
NOTES = ("places", "mirrored", "bare")

#: Words that a mirrored image makes untrue.
_SIDES = re.compile(r"\b(?:left|right)(?:most|-hand)?\b", re.IGNORECASE)


def may_mirror(sample: Sample) -> bool:
    """Whether no caption says what is on the left or on the right."""
    return not any(_SIDES.search(caption) for caption in sample.captions)


def mirrored(sample: Sample) -> Sample:
    """The same sample, its image seen mirrored."""
    return replace(sample, extra=dict(sample.extra) | {MIRRORED: True})


def without_context(sample: Sample) -> Sample:
    """The same sample with nothing in its prompt but the prompt."""
    return replace(sample, context={})


class Examples(Dataset[Sample]):
    """One example for each image and ``captions_per_image`` of its captions; an epoch sees every pair once.

    Index ``i + len(examples) · (mirror + 2 · bare)`` is example i, with ``mirror`` its image mirrored (but not where a
    caption speaks of left or right), with ``bare`` its context left out.

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
        variant, place = divmod(index, len(self))
        number, first, end = self._places[place]
        sample = self.samples[number]
        example = replace(sample, captions=sample.captions[first:end], extra={"place": number})
        if variant & _BARE:
            example = without_context(example)
        return mirrored(example) if variant & _MIRROR and may_mirror(sample) else example


class Collator:
    """Examples → a batch with targets; cached features instead of pixels where there is a cache.

    ``places`` [N] says which samples the images are, ``mirrored`` [N] which of them are mirrored, and ``bare`` [N]
    which have no context.
    """

    def __init__(self, family: Family, cache: FeatureCache | None):
        self.family = family
        self.cache = cache

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        features = self.cache.get(samples) if self.cache else None
        batch = self.family.encode(samples, with_targets=True, features=features)
        return batch | {
            "places": torch.tensor([sample.extra.get("place", -1) for sample in samples]),
            "mirrored": torch.tensor([bool(sample.extra.get(MIRRORED)) for sample in samples]),
            "bare": torch.tensor([not sample.context for sample in samples]),
        }


class EpochShuffle(Sampler[int]):
    """An order that depends on seed and epoch alone, so a resumed epoch goes on in the order that it began with.

    Args:
        size: number of examples.
        seed: of the order.
        flip: mirror a half of them, drawn anew each epoch: their indices are raised by ``size``.
        drop_context: share of them whose context is left out, drawn anew each epoch: raised by ``2 · size``.
    """

    def __init__(self, size: int, seed: int, flip: bool = False, drop_context: float = 0.0):
        self.size, self.seed, self.flip, self.drop_context, self.epoch = size, seed, flip, drop_context, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.size, generator=generator)
        if self.flip:
            order += _MIRROR * self.size * torch.randint(2, (self.size,), generator=generator)
        if self.drop_context:
            order += _BARE * self.size * (torch.rand(self.size, generator=generator) < self.drop_context)
        yield from order.tolist()

    def __len__(self) -> int:
        return self.size
