"""The images and captions that are ranked, with duplicates removed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cutline.core.records import Sample

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Gallery:
    """N images with M captions; U of the pictures and D of the texts are distinct.

    Pictures are the same when their files are, byte for byte; texts, when a model reads the same tokens.

    Attributes:
        samples: N images that have captions.
        pictures: U samples, the first of each picture.
        picture_of: [N] indices into ``pictures``; -1 where the picture can't be opened.
        texts: D.
        text_of: [M] indices into ``texts``.
        sample_of: [M] indices into ``samples``.
    """

    samples: list[Sample]
    pictures: list[Sample]
    picture_of: Indices
    texts: list[str]
    text_of: Indices
    sample_of: Indices

    @property
    def ids(self) -> list[str]:
        return [sample.id for sample in self.samples]

    def caption_ids(self) -> list[str]:
        """Ids of the M captions: the image's id and the caption's number, from 0: "photo#2"."""
        return [f"{sample.id}#{n}" for sample in self.samples for n in range(len(sample.captions))]

    def without(self, failed: Collection[int]) -> Gallery:
        """The gallery without the pictures that can't be opened."""
        kept = [index for index in range(len(self.pictures)) if index not in failed]
        new_index = np.full(len(self.pictures) + 1, -1)  # the last entry maps -1 to -1
        new_index[kept] = np.arange(len(kept))
        return replace(self, pictures=[self.pictures[index] for index in kept], picture_of=new_index[self.picture_of])

    def counts(self) -> dict[str, int]:
        """Counts of images, captions, unreadable images, and duplicates."""
        owners = {(text, sample) for text, sample in zip(self.text_of.tolist(), self.sample_of.tolist(), strict=True)}
        images_of_text = np.bincount([text for text, _ in owners], minlength=len(self.texts))
        readable = self.picture_of[self.picture_of >= 0]
        return {
            "images": len(self.samples),
            "captions": len(self.text_of),
            "failed": len(self.samples) - len(readable),
            "shared_captions": int((images_of_text[self.text_of] > 1).sum()),
            "duplicate_images": len(readable) - len(self.pictures),
        }


def gather(samples: Sequence[Sample], tokens: Callable[[Sequence[str]], Sequence[Hashable]]) -> Gallery:
    """The gallery of the samples that have captions.

    Args:
        tokens: texts → the tokens that a model reads; texts with equal tokens count as one.
    """
    kept = [sample for sample in samples if sample.captions]
    captions = [caption for sample in kept for caption in sample.captions]
    picture_of, pictures = _first_of([sample.extra.get("sha256") or sample.image for sample in kept])
    text_of, texts = _first_of(tokens(captions))
    return Gallery(
        samples=kept,
        pictures=[kept[index] for index in pictures],
        picture_of=picture_of,
        texts=[captions[index] for index in texts],
        text_of=text_of,
        sample_of=np.repeat(np.arange(len(kept)), [len(sample.captions) for sample in kept]),
    )


def _first_of(keys: Sequence[Hashable]) -> tuple[Indices, list[int]]:
    """The number of each key among the distinct keys, and the index at which each distinct key comes first."""
    numbers: dict[Hashable, int] = {}
    firsts: list[int] = []
    number_of = np.empty(len(keys), np.int64)
    for index, key in enumerate(keys):
        if key not in numbers:
            numbers[key] = len(firsts)
            firsts.append(index)
        number_of[index] = numbers[key]
    return number_of, firsts
