"""Statistics of images: sizes, images that can't be opened, and repeated images (the same bytes, or the same look)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cutline.core.records import Sample
from cutline.data.problem import Problem
from cutline.images.open import ImageFacts
from cutline.images.perceptual import NearDuplicates, PerceptualHash

#: Images look the same when at most this many of the 64 bits of their hashes differ; as in [data.steps.dedup].
DISTANCE = 6

#: How many pairs and broken images are listed.
MOST_LISTED = 200


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two samples with the same image.

    Attributes:
        how: "exact" (the same bytes) or "near" (they look the same).
        first, second: ids of the samples.
        splits, images: of the two samples.
    """

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
    """Statistics of a dataset's images.

    Attributes:
        opened: images that were decoded, now or in an earlier run.
        broken: reason → number of images that can't be decoded.
        broken_listed: some of these, with id and detail.
        unfetched: images that are still URLs.
        sizes: (width, height) in px → number of images.
        repeats: ("exact" or "near", "within" or "between" splits) → number of images that repeat an earlier one.
        pairs: some of these, those between splits first.
    """

    opened: int
    broken: Mapping[str, int]
    broken_listed: tuple[Problem, ...]
    unfetched: int
    sizes: Mapping[tuple[int, int], int]
    repeats: Mapping[tuple[str, str], int]
    pairs: tuple[Pair, ...]

    def quantiles(self) -> dict[str, dict[str, float]]:
        """Minimum, quartiles and maximum of width, height, shorter side (px) and aspect (width / height)."""
        if not self.sizes:
            return {}
        counts = np.fromiter(self.sizes.values(), np.int64, len(self.sizes))
        width, height = np.array(list(self.sizes), np.float64).T
        quantiles = {}
        columns = {"width": width, "height": height, "short_side": np.minimum(width, height), "aspect": width / height}
        for name, values in columns.items():
            order = np.argsort(values)
            cumulative = np.cumsum(counts[order]) / counts.sum()
            shares = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "max": 1.0}
            ranks = {key: min(int(np.searchsorted(cumulative, share)), len(order) - 1) for key, share in shares.items()}
            quantiles[name] = {key: round(float(values[order[rank]]), 3) for key, rank in ranks.items()}
        return quantiles

    def to_json(self) -> dict[str, Any]:
        return {
            "opened": self.opened,
            "broken": dict(self.broken),
            "unfetched": self.unfetched,
            "broken_images": [problem.to_json() for problem in self.broken_listed],
            "different_sizes": len(self.sizes),
            "size_px": self.quantiles(),
            "repeated": {
                how: {where: self.repeats.get((how, where), 0) for where in ("within", "between")}
                for how in ("exact", "near")
            },
            "repeated_pairs": [pair.to_json() for pair in self.pairs],
        }


class Pictures:
    """Collects the statistics sample by sample. Memory: about 600 bytes per image."""

    def __init__(self, distance: int = DISTANCE) -> None:
        self._by_bytes: dict[int, int] = {}  # start of the SHA-256 → index in _samples
        self._near = NearDuplicates(distance)
        self._samples: list[tuple[str, str, str]] = []  # id, split and path of each different image, as in _near
        self._sizes: Counter[tuple[int, int]] = Counter()
        self._broken: Counter[str] = Counter()
        self._broken_listed: list[Problem] = []
        self._repeats: Counter[tuple[str, str]] = Counter()
        self._pairs: dict[bool, list[Pair]] = {True: [], False: []}
        self._opened = self._unfetched = 0

    def add(self, sample: Sample, opened: tuple[ImageFacts, PerceptualHash] | Problem | None) -> None:
        """
        Args:
            opened: the image's facts and hash, or why it can't be decoded; None for a URL.
        """
        if opened is None:
            self._unfetched += 1
            return
        if isinstance(opened, Problem):
            self._broken[opened.reason] += 1
            if len(self._broken_listed) < MOST_LISTED:
                self._broken_listed.append(opened)
            return
        facts, hashed = opened
        self._opened += 1
        self._sizes[facts.width, facts.height] += 1
        this = (sample.id, sample.split, sample.image)
        digest = int(facts.sha256[:16], 16)
        if digest in self._by_bytes:
            self._add_pair("exact", self._samples[self._by_bytes[digest]], this)
            return
        earlier = self._near.find(hashed)
        if earlier is not None:
            self._add_pair("near", self._samples[earlier], this)
        self._by_bytes[digest] = self._near.add(hashed)
        self._samples.append(this)

    def _add_pair(self, how: str, first: tuple[str, str, str], second: tuple[str, str, str]) -> None:
        pair = Pair(
            how=how, first=first[0], second=second[0], splits=(first[1], second[1]), images=(first[2], second[2])
        )
        self._repeats[how, "between" if pair.leaks else "within"] += 1
        if len(self._pairs[pair.leaks]) < MOST_LISTED:
            self._pairs[pair.leaks].append(pair)

    def facts(self) -> PictureFacts:
        return PictureFacts(
            opened=self._opened,
            broken=self._broken,
            broken_listed=tuple(self._broken_listed),
            unfetched=self._unfetched,
            sizes=self._sizes,
            repeats=self._repeats,
            pairs=(*self._pairs[True], *self._pairs[False]),
        )
