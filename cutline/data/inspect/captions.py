"""Captions: how many, how long, of which words, and which are said again and again."""

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
from cutline.data.steps.filter import Filter
from cutline.data.steps.filter import FilterSettings as FilterSettings

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")

#: Captions that are listed because many images have them.
MOST_FREQUENT = 20


def words_of(text: str) -> list[str]:
    """Words in lower case, without punctuation."""
    return _WORD.findall(text.lower())


@dataclass(frozen=True, kw_only=True)
class Frequent:
    """A caption that several images have: as it was first written, how many images, and the first of them."""

    text: str
    images: int
    first: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class CaptionFacts:
    """What is known of a dataset's captions. Two are the same when their words are, whatever case and punctuation.

    Attributes:
        images, captions: number by split.
        per_image: captions an image → number of images.
        lengths: words a caption → number of captions.
        words: word → how often it is said.
        several: images with two captions or more.
        all_same, some_same: of these, images whose captions are all the same; that say one of theirs twice or more.
        distinct: number of different captions.
        shared: images of which a caption also stands at another image.
        no_own: images without a caption that is theirs alone.
        known: split other than train → (images with a caption that a training image has, images).
        unknown_words: split other than train → share of its words (each counted as often as said) never said in train.
        faults: rule of the filter step → captions that break it.
        frequent: the captions that most images have; only those of two or more.
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
    frequent: tuple[Frequent, ...]

    @property
    def total(self) -> int:
        return sum(self.captions.values())

    def length_statistics(self) -> dict[str, float]:
        """Fewest, mean, most words of a caption, median, and the 95th percentile; {} without captions."""
        if not self.lengths:
            return {}
        values = np.array(sorted(self.lengths))
        counts = np.array([self.lengths[value] for value in values])
        below = np.cumsum(counts) / counts.sum()
        quantile = {share: int(values[np.searchsorted(below, share)]) for share in (0.5, 0.95)}
        mean = float((values * counts).sum() / counts.sum())
        return {
            "min": int(values[0]), "mean": mean, "median": quantile[0.5], "p95": quantile[0.95], "max": int(values[-1])
        }  # fmt: skip

    def vocabulary(self) -> dict[str, int]:
        """Different words, those said once, and all words."""
        return {
            "words": len(self.words),
            "said_once": sum(count == 1 for count in self.words.values()),
            "running_words": sum(self.words.values()),
        }

    def to_json(self) -> dict[str, Any]:
        return {
            "images": dict(self.images), "captions": dict(self.captions), "total": self.total,
            "per_image": {str(many): count for many, count in self.per_image.items()},
            "length_words": self.length_statistics(), "vocabulary": self.vocabulary(),
            "repeated": {
                "images_with_several": self.several, "all_the_same": self.all_same, "some_the_same": self.some_same,
                "distinct_captions": self.distinct, "images_sharing_a_caption": self.shared,
                "images_without_own_caption": self.no_own,
                "images_with_a_training_caption": {
                    split: {"images": known, "of": of} for split, (known, of) in self.known.items()
                },
            },
            "words_unknown_to_train": dict(self.unknown_words), "faults": dict(self.faults),
            "most_frequent": [{"caption": found.text, "images": found.images} for found in self.frequent],
        }  # fmt: skip


class Captions:
    """Counts captions sample by sample. Memory: each different caption once, and four bytes for each caption."""

    def __init__(self) -> None:
        self._images: Counter[str] = Counter()
        self._captions: Counter[str] = Counter()
        self._per_image: Counter[int] = Counter()
        self._lengths: Counter[int] = Counter()
        self._words: dict[str, Counter[str]] = {}
        self._numbers: dict[str, int] = {}  # caption's words → its number
        self._written: list[str] = []
        self._said = array("L")  # the different captions of each image, by number
        self._ends = array("L")
        self._splits: list[str] = []
        self._several = self._all_same = self._some_same = 0
        self._filter = Filter(FilterSettings())
        self._faults: Counter[str] = Counter()

    def add(self, sample: Sample) -> None:
        self._images[sample.split] += 1
        self._captions[sample.split] += len(sample.captions)
        self._per_image[len(sample.captions)] += 1
        said = []
        counted = self._words.setdefault(sample.split, Counter())
        for caption in sample.captions:
            words = words_of(caption)
            self._lengths[len(words)] += 1
            counted.update(words)
            key = " ".join(words)
            if key not in self._numbers:
                self._numbers[key] = len(self._written)
                self._written.append(caption)
            said.append(self._numbers[key])
            if fault := self._filter.fault(caption):
                self._faults[fault] += 1
        different = dict.fromkeys(said)
        if len(said) > 1:
            self._several += 1
            self._all_same += len(different) == 1
            self._some_same += len(different) < len(said)
        self._said.extend(different)
        self._ends.append(len(self._said))
        self._splits.append(sample.split)

    def facts(self) -> CaptionFacts:
        said = np.frombuffer(self._said, f"u{self._said.itemsize}") if self._said else np.zeros(0, np.uint64)
        ends = np.array(self._ends, np.int64)
        image = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))  # of each entry of `said`
        images = np.bincount(said.astype(np.int64), minlength=len(self._written))  # of each caption
        shared_here = images[said.astype(np.int64)] > 1
        shared = np.zeros(len(ends), bool)
        shared[image[shared_here]] = True
        own = np.zeros(len(ends), bool)
        own[image[~shared_here]] = True
        captioned = np.diff(ends, prepend=0) > 0
        words: Counter[str] = Counter()
        for counted in self._words.values():
            words.update(counted)
        return CaptionFacts(
            images=self._images, captions=self._captions, per_image=dict(sorted(self._per_image.items())),
            lengths=dict(sorted(self._lengths.items())), words=words, several=self._several, all_same=self._all_same,
            some_same=self._some_same, distinct=len(self._written), shared=int(shared.sum()),
            no_own=int((captioned & ~own).sum()), known=self._known(said, image), unknown_words=self._unknown_words(),
            faults=self._faults, frequent=self._frequent(said, image, images),
        )  # fmt: skip

    def _known(self, said: NDArray[Any], image: NDArray[np.int64]) -> dict[str, tuple[int, int]]:
        splits = np.array(self._splits)
        if "train" not in self._images:
            return {}
        in_train = np.zeros(len(self._written), bool)
        in_train[said[splits[image] == "train"].astype(np.int64)] = True
        found = {}
        for split, many in self._images.items():
            if split != "train":
                here = (splits[image] == split) & in_train[said.astype(np.int64)]
                found[split] = (len(np.unique(image[here])), many)
        return found

    def _unknown_words(self) -> dict[str, float]:
        train = self._words.get("train")
        if not train:
            return {}
        shares = {}
        for split, counted in self._words.items():
            if split != "train" and (every := counted.total()):
                shares[split] = sum(many for word, many in counted.items() if word not in train) / every
        return shares

    def _frequent(
        self, said: NDArray[Any], image: NDArray[np.int64], images: NDArray[np.int64]
    ) -> tuple[Frequent, ...]:
        order = np.argsort(-images, kind="stable")[:MOST_FREQUENT]
        return tuple(
            Frequent(
                text=self._written[number],
                images=int(images[number]),
                first=tuple(int(place) for place in image[np.flatnonzero(said == number)[:4]]),
            )
            for number in order
            if images[number] > 1
        )


def languages(texts: Sequence[str], most: int = 2000) -> dict[str, int] | None:
    """Language (ISO code) → number of texts, of at most ``most`` of them, evenly drawn; None without py3langid.

    Of a short text a language is a guess: give all that is said of an image as one text.
    """
    try:
        import py3langid
    except ImportError:
        return None
    step = max(1, -(-len(texts) // most))
    return dict(Counter(str(py3langid.classify(text)[0]) for text in texts[::step]).most_common())
