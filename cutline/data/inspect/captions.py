"""Statistics of captions: number, length, vocabulary and repetition."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cutline.core.records import Sample
from cutline.data.steps.filter import Filter, FilterSettings

#: Words as people count them: "don't" and "well-known" are one each.
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")

#: How many of the most frequent captions are listed.
MOST_FREQUENT = 20


def words_of(text: str) -> list[str]:
    """Words in lower case, without punctuation."""
    return _WORD.findall(text.lower())


@dataclass(frozen=True, kw_only=True)
class FrequentCaption:
    """A caption that several images have.

    Attributes:
        text: as its first image has it.
        images: number of images that have it.
        first: indices of the first of these images.
    """

    text: str
    images: int
    first: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class CaptionFacts:
    """Statistics of a dataset's captions. Captions with the same words are the same, whatever case and punctuation.

    Attributes:
        images, captions: number by split.
        per_image: captions per image → number of images.
        lengths: words per caption → number of captions.
        words: word → number of occurrences.
        several: images with two captions or more.
        all_same, some_same: of these, images whose captions are all the same; images that repeat at least one.
        distinct: number of different captions.
        shared: images that share a caption with another image.
        no_own: images that share each of their captions with another image.
        known: split other than train → (images with a caption that a training image has, images).
        unknown_words: split other than train → share of its words (counted with repetition) that never occur in train.
        faults: rule of the filter step → captions that break it.
        frequent: the captions of most images, most frequent first; only captions of two images or more.
    """

    images: Mapping[str, int]
    captions: Mapping[str, int]
    per_image: Mapping[int, int]
    lengths: Mapping[int, int]
    words: Mapping[str, int]
    several: int
    all_same: int
    some_same: int
    distinct: int
    shared: int
    no_own: int
    known: Mapping[str, tuple[int, int]]
    unknown_words: Mapping[str, float]
    faults: Mapping[str, int]
    frequent: tuple[FrequentCaption, ...]

    @property
    def total(self) -> int:
        return sum(self.captions.values())

    def length_statistics(self) -> dict[str, float]:
        """Words per caption: minimum, mean, median, 95th percentile, maximum; {} without captions."""
        if not self.lengths:
            return {}
        values = np.array(sorted(self.lengths))
        counts = np.array([self.lengths[value] for value in values])
        cumulative = np.cumsum(counts) / counts.sum()
        quantile = {share: int(values[np.searchsorted(cumulative, share)]) for share in (0.5, 0.95)}
        mean = float((values * counts).sum() / counts.sum())
        return {
            "min": int(values[0]),
            "mean": mean,
            "median": quantile[0.5],
            "p95": quantile[0.95],
            "max": int(values[-1]),
        }

    def vocabulary(self) -> dict[str, int]:
        """Number of different words, of words that occur once, and of all words."""
        return {
            "words": len(self.words),
            "used_once": sum(count == 1 for count in self.words.values()),
            "running_words": sum(self.words.values()),
        }

    def to_json(self) -> dict[str, Any]:
        return {
            "images": dict(self.images),
            "captions": dict(self.captions),
            "total": self.total,
            "per_image": {str(captions): images for captions, images in self.per_image.items()},
            "length_words": self.length_statistics(),
            "vocabulary": self.vocabulary(),
            "repeated": {
                "images_with_several": self.several,
                "all_the_same": self.all_same,
                "some_the_same": self.some_same,
                "distinct_captions": self.distinct,
                "images_sharing_a_caption": self.shared,
                "images_without_own_caption": self.no_own,
                "images_with_a_training_caption": {
                    split: {"images": known, "of": images} for split, (known, images) in self.known.items()
                },
            },
            "words_unknown_to_train": dict(self.unknown_words),
            "faults": dict(self.faults),
            "most_frequent": [{"caption": caption.text, "images": caption.images} for caption in self.frequent],
        }


class Captions:
    """Collects the statistics sample by sample. Memory: each different caption once, and 8 bytes per caption."""

    def __init__(self) -> None:
        self._images: Counter[str] = Counter()
        self._captions: Counter[str] = Counter()
        self._per_image: Counter[int] = Counter()
        self._lengths: Counter[int] = Counter()
        self._words: dict[str, Counter[str]] = {}
        self._indices: dict[str, int] = {}  # words of a caption → its index in _texts
        self._texts: list[str] = []
        self._entries = array("Q")  # the different captions of each image, as indices in _texts
        self._ends = array("Q")  # where each image's entries end
        self._splits: list[str] = []
        self._several = self._all_same = self._some_same = 0
        self._filter = Filter(FilterSettings())
        self._faults: Counter[str] = Counter()

    def add(self, sample: Sample) -> None:
        self._images[sample.split] += 1
        self._captions[sample.split] += len(sample.captions)
        self._per_image[len(sample.captions)] += 1
        indices = []
        word_counts = self._words.setdefault(sample.split, Counter())
        for caption in sample.captions:
            words = words_of(caption)
            self._lengths[len(words)] += 1
            word_counts.update(words)
            key = " ".join(words)
            if key not in self._indices:
                self._indices[key] = len(self._texts)
                self._texts.append(caption)
            indices.append(self._indices[key])
            if fault := self._filter.fault(caption):
                self._faults[fault] += 1
        different = dict.fromkeys(indices)
        if len(indices) > 1:
            self._several += 1
            self._all_same += len(different) == 1
            self._some_same += len(different) < len(indices)
        self._entries.extend(different)
        self._ends.append(len(self._entries))
        self._splits.append(sample.split)

    def facts(self) -> CaptionFacts:
        entries = np.array(self._entries, np.int64)
        ends = np.array(self._ends, np.int64)
        image = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))  # of each entry
        images = np.bincount(entries, minlength=len(self._texts))  # number of images of each caption
        is_shared = images[entries] > 1
        shared = np.zeros(len(ends), bool)
        shared[image[is_shared]] = True
        own = np.zeros(len(ends), bool)
        own[image[~is_shared]] = True
        captioned = np.diff(ends, prepend=0) > 0
        words: Counter[str] = Counter()
        for word_counts in self._words.values():
            words.update(word_counts)
        return CaptionFacts(
            images=self._images,
            captions=self._captions,
            per_image=dict(sorted(self._per_image.items())),
            lengths=dict(sorted(self._lengths.items())),
            words=words,
            several=self._several,
            all_same=self._all_same,
            some_same=self._some_same,
            distinct=len(self._texts),
            shared=int(shared.sum()),
            no_own=int((captioned & ~own).sum()),
            known=self._known(entries, image),
            unknown_words=self._unknown_words(),
            faults=self._faults,
            frequent=self._frequent(entries, image, images),
        )

    def _known(self, entries: NDArray[np.int64], image: NDArray[np.int64]) -> dict[str, tuple[int, int]]:
        splits = np.array(self._splits)
        if "train" not in self._images:
            return {}
        in_train = np.zeros(len(self._texts), bool)
        in_train[entries[splits[image] == "train"]] = True
        known = {}
        for split, images in self._images.items():
            if split != "train":
                matches = (splits[image] == split) & in_train[entries]
                known[split] = (len(np.unique(image[matches])), images)
        return known

    def _unknown_words(self) -> dict[str, float]:
        train = self._words.get("train")
        if not train:
            return {}
        shares = {}
        for split, word_counts in self._words.items():
            if split != "train" and (total := word_counts.total()):
                shares[split] = sum(count for word, count in word_counts.items() if word not in train) / total
        return shares

    def _frequent(
        self, entries: NDArray[np.int64], image: NDArray[np.int64], images: NDArray[np.int64]
    ) -> tuple[FrequentCaption, ...]:
        order = np.argsort(-images, kind="stable")[:MOST_FREQUENT]
        return tuple(
            FrequentCaption(
                text=self._texts[caption],
                images=int(images[caption]),
                first=tuple(int(index) for index in image[np.flatnonzero(entries == caption)[:4]]),
            )
            for caption in order
            if images[caption] > 1
        )


def languages(texts: Sequence[str], limit: int = 2000) -> dict[str, int] | None:
    """Language (ISO code) → number of texts, of at most ``limit`` evenly spaced ones; None without py3langid.

    The language of a short text is a guess: give all captions of an image as one text.
    """
    try:
        import py3langid
    except ImportError:
        return None
    step = max(1, -(-len(texts) // limit))
    return dict(Counter(str(py3langid.classify(text)[0]) for text in texts[::step]).most_common())
