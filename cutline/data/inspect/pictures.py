"""Pictures: their sizes, those that can't be opened, and those that come again, to the byte or to the eye."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cutline.core.records import Sample
from cutline.data.problem import Problem
from cutline.images.open import ImageFacts
from cutline.images.perceptual import Look, Near

#: Bits of 64 by which the hashes of pictures that look the same may differ; as in [data.steps.dedup].
DISTANCE = 6

#: Pairs and broken images that are named one by one.
MOST_NAMED = 200


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two samples with the same picture ("exact": byte for byte; "near": to the eye)."""

    how: str
    first: str
    second: str
    splits: tuple[str, str]
    images: tuple[str, str]

    @property
    def leaks(self) -> bool:
        return self.splits[0] != self.splits[1]

    def to_json(self) -> dict[str, Any]:
        return {"how": self.how, "ids": [self.first, self.second], "splits": list(self.splits)}


@dataclass(frozen=True, kw_only=True)
class PictureFacts:
    """What is known of a dataset's pictures.

    Attributes:
        opened: pictures that were decoded, or known to be whole.
        broken: reason → number of images that give no picture; ``named``: some of them, with id and detail.
        unfetched: images that are addresses on the web.
        sizes: (width, height) in px → number of pictures.
        repeats: ("exact" or "near", "within" or "between" splits) → number of pictures that an earlier one equals.
        pairs: some of these, those between splits first.
    """

    opened: int
    broken: Mapping[str, int]
    named: tuple[Problem, ...]
    unfetched: int
    sizes: Mapping[tuple[int, int], int]
    repeats: Mapping[tuple[str, str], int]
    pairs: tuple[Pair, ...]

    def quantiles(self) -> dict[str, dict[str, float]]:
        """Of width, height, shorter side (px) and aspect (width / height): least, quartiles, greatest."""
        if not self.sizes:
            return {}
        counts = np.fromiter(self.sizes.values(), np.int64, len(self.sizes))
        width, height = np.array(list(self.sizes), np.float64).T
        found = {}
        columns = {"width": width, "height": height, "short_side": np.minimum(width, height), "aspect": width / height}
        for name, values in columns.items():
            order = np.argsort(values)
            below = np.cumsum(counts[order]) / counts.sum()
            shares = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "max": 1.0}
            places = {key: min(int(np.searchsorted(below, share)), len(order) - 1) for key, share in shares.items()}
            found[name] = {key: round(float(values[order[place]]), 3) for key, place in places.items()}
        return found

    def to_json(self) -> dict[str, Any]:
        return {
            "opened": self.opened, "broken": dict(self.broken), "unfetched": self.unfetched,
            "broken_images": [problem.to_json() for problem in self.named],
            "different_sizes": len(self.sizes), "size_px": self.quantiles(),
            "repeated": {
                how: {where: self.repeats.get((how, where), 0) for where in ("within", "between")}
                for how in ("exact", "near")
            },
            "repeated_pairs": [pair.to_json() for pair in self.pairs],
        }  # fmt: skip


class Pictures:
    """Counts pictures sample by sample. Memory: about 600 bytes a picture."""

    def __init__(self, distance: int = DISTANCE) -> None:
        self._same: dict[int, int] = {}
        self._near = Near(distance)
        self._samples: list[tuple[str, str, str]] = []  # of each picture in _near: id, split, path
        self._sizes: Counter[tuple[int, int]] = Counter()
        self._broken: Counter[str] = Counter()
        self._named: list[Problem] = []
        self._repeats: Counter[tuple[str, str]] = Counter()
        self._pairs: dict[bool, list[Pair]] = {True: [], False: []}
        self._opened = self._unfetched = 0

    def add(self, sample: Sample, seen: tuple[ImageFacts, Look] | Problem | None) -> None:
        """
        Args:
            seen: what opening the image showed; None when it is still an address.
        """
        if seen is None:
            self._unfetched += 1
            return
        if isinstance(seen, Problem):
            self._broken[seen.reason] += 1
            if len(self._named) < MOST_NAMED:
                self._named.append(seen)
            return
        facts, look = seen
        self._opened += 1
        self._sizes[facts.width, facts.height] += 1
        this = (sample.id, sample.split, sample.image)
        digest = int(facts.sha256[:16], 16)
        if digest in self._same:
            self._again("exact", self._samples[self._same[digest]], this)
            return
        found = self._near.find(look)
        if found is not None:
            self._again("near", self._samples[found], this)
        self._same[digest] = self._near.add(look)
        self._samples.append(this)

    def _again(self, how: str, first: tuple[str, str, str], second: tuple[str, str, str]) -> None:
        pair = Pair(
            how=how, first=first[0], second=second[0], splits=(first[1], second[1]), images=(first[2], second[2])
        )
        self._repeats[how, "between" if pair.leaks else "within"] += 1
        if len(self._pairs[pair.leaks]) < MOST_NAMED:
            self._pairs[pair.leaks].append(pair)

    def facts(self) -> PictureFacts:
        return PictureFacts(
            opened=self._opened, broken=self._broken, named=tuple(self._named), unfetched=self._unfetched,
            sizes=self._sizes, repeats=self._repeats, pairs=(*self._pairs[True], *self._pairs[False]),
        )  # fmt: skip
