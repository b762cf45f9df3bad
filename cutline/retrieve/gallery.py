"""What is ranked: pictures and captions, each once, however often it comes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cutline.core.records import Sample

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Gallery:
    """N images with M captions; U of the pictures and D of the texts are distinct.

    Pictures are the same when their files are, byte for byte; texts, when a model reads the same tokens.

    Attributes:
        samples: N images that have captions.
        pictures: U samples, the first of each picture.
        picture_of: [N] places in ``pictures``; -1 where the picture can't be opened.
        texts: D.
        text_of: [M] places in ``texts``.
        sample_of: [M] places in ``samples``.
    """

    samples: list[Sample]
    pictures: list[Sample]
    picture_of: Places
    texts: list[str]
    text_of: Places
    sample_of: Places

    @property
    def ids(self) -> list[str]:
        return [sample.id for sample in self.samples]

    def caption_ids(self) -> list[str]:
        """The M captions' names: their image's, and which of its captions it is, from 0."""
        return [f"{sample.id}#{n}" for sample in self.samples for n in range(len(sample.captions))]

    def without(self, failed: Collection[int]) -> Gallery:
        """The gallery without some pictures, which nothing can find any more."""
        kept = [place for place in range(len(self.pictures)) if place not in failed]
        moved = np.full(len(self.pictures) + 1, -1)
        moved[kept] = np.arange(len(kept))
        return replace(self, pictures=[self.pictures[place] for place in kept], picture_of=moved[self.picture_of])

    def counts(self) -> dict[str, int]:
        """Of images, captions, and what comes more than once."""
        owners = {(text, sample) for text, sample in zip(self.text_of.tolist(), self.sample_of.tolist(), strict=True)}
        images_of_text = np.bincount([text for text, _ in owners], minlength=len(self.texts))
        there = self.picture_of[self.picture_of >= 0]
        return {
            "images": len(self.samples),
            "captions": len(self.text_of),
            "failed": len(self.samples) - len(there),
            "captions_of_several_images": int((images_of_text[self.text_of] > 1).sum()),
            "pictures_that_come_again": len(there) - len(self.pictures),
        }


def gather(samples: Sequence[Sample], tokens: Callable[[Sequence[str]], Sequence[Hashable]]) -> Gallery:
    """The gallery of the samples that have captions.

    Args:
        tokens: texts → what a model reads of each; what is equal is one text.
    """
    kept = [sample for sample in samples if sample.captions]
    captions = [caption for sample in kept for caption in sample.captions]
    picture_of, pictures = _first_of([sample.extra.get("sha256") or sample.image for sample in kept])
    text_of, texts = _first_of(tokens(captions))
    return Gallery(
        samples=kept,
        pictures=[kept[place] for place in pictures],
        picture_of=picture_of,
        texts=[captions[place] for place in texts],
        text_of=text_of,
        sample_of=np.repeat(np.arange(len(kept)), [len(sample.captions) for sample in kept]),
    )


def _first_of(keys: Sequence[Hashable]) -> tuple[Places, list[int]]:
    """Each key's number, and where each number comes first."""
    numbers: dict[Hashable, int] = {}
    firsts: list[int] = []
    found = np.empty(len(keys), np.int64)
    for place, key in enumerate(keys):
        if key not in numbers:
            numbers[key] = len(firsts)
            firsts.append(place)
        found[place] = numbers[key]
    return found, firsts
