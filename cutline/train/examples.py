"""Training examples: images with one or more of their captions, and how they become batches."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch.utils.data import Dataset, Sampler

from cutline.core.records import Sample
from cutline.families.base import Batch, Family
from cutline.families.common.feature_cache import FeatureCache
from cutline.families.meta import without_weights
from cutline.images.open import MIRRORED

#: Keys of a training batch that the model does not see: which samples its images are, and how they were changed.
NOTES = ("indices", "mirrored", "bare")

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


@dataclass(frozen=True, slots=True)
class Draw:
    """What the sampler draws: an example, and how it is changed.

    Attributes:
        index: of the example.
        flip: its image is mirrored, unless a caption says what is on the left or on the right.
        bare: its context is left out.
    """

    index: int
    flip: bool = False
    bare: bool = False


class Examples(Dataset[Sample]):
    """One example for each image and ``captions_per_image`` of its captions; an epoch sees every pair once.

    Args:
        samples: images with at least one caption each.
        captions_per_image: captions that an example holds, or "all" for one example an image.
    """

    def __init__(self, samples: Sequence[Sample], captions_per_image: int | Literal["all"]):
        self.samples = samples
        self._slices: list[tuple[int, int, int]] = []  # sample, first caption, end
        for number, sample in enumerate(samples):
            count = len(sample.captions)
            size = count if captions_per_image == "all" else captions_per_image
            self._slices += [(number, first, min(first + size, count)) for first in range(0, count, size)]

    def __len__(self) -> int:
        return len(self._slices)

    def __getitem__(self, draw: Draw | int) -> Sample:
        """The example at an index, changed as the draw says. ``extra["index"]`` is the index of its sample."""
        draw = draw if isinstance(draw, Draw) else Draw(draw)
        number, first, end = self._slices[draw.index]
        sample = self.samples[number]
        example = replace(sample, captions=sample.captions[first:end], extra={"index": number})
        if draw.bare:
            example = without_context(example)
        return mirrored(example) if draw.flip and may_mirror(sample) else example

    def of(self, batch: Batch) -> list[Sample]:
        """The samples of a collated batch: each once, with all its captions, changed as the batch has them."""
        samples = {}
        for number, flip, bare in zip(*(batch[name].tolist() for name in NOTES), strict=True):
            sample = self.samples[number]
            sample = without_context(sample) if bare else sample
            samples[number] = mirrored(sample) if flip else sample
        return list(samples.values())


class Collator:
    """Examples → a batch with targets; cached features instead of pixels where there is a cache.

    ``indices`` [N] are those of the images' samples; ``mirrored`` [N] says which of them are mirrored, and ``bare`` [N]
    which have no context.
    """

    def __init__(self, family: Family, cache: FeatureCache | None):
        self.family = family
        self.cache = cache

    def __getstate__(self) -> dict[str, Any]:
        # a worker needs no weights; under forkserver each tensor would take a file descriptor, of which there are 256
        return {"family": without_weights(self.family), "cache": self.cache}

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        features = self.cache.get(samples) if self.cache else None
        batch = self.family.collate(samples, with_targets=True, features=features)
        return batch | {
            "indices": torch.tensor([sample.extra.get("index", -1) for sample in samples]),
            "mirrored": torch.tensor([bool(sample.extra.get(MIRRORED)) for sample in samples]),
            "bare": torch.tensor([not sample.context for sample in samples]),
        }


class EpochShuffle(Sampler[Draw]):
    """An order that depends on seed and epoch alone, so that a resumed epoch continues in the same order.

    Args:
        size: number of examples.
        seed: seed for the order.
        flip: mirror a half of them, drawn for each epoch.
        drop_context: share of them whose context is left out, drawn for each epoch.
    """

    def __init__(self, size: int, seed: int, flip: bool = False, drop_context: float = 0.0):
        self.size, self.seed, self.flip, self.drop_context, self.epoch = size, seed, flip, drop_context, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Draw]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.size, generator=generator)
        flip = bare = torch.zeros(self.size, dtype=torch.bool)
        if self.flip:
            flip = torch.randint(2, (self.size,), generator=generator).bool()
        if self.drop_context:
            bare = torch.rand(self.size, generator=generator) < self.drop_context
        yield from map(Draw, order.tolist(), flip.tolist(), bare.tolist())

    def __len__(self) -> int:
        return self.size
