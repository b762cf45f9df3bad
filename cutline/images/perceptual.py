"""Pictures that look the same though their bytes differ: other sizes, other compression, small retouches."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Grey levels by which the colours of two such pictures may differ on average, in 16 fields. Flat pictures (sky, sea,
#: deserts) have hashes that are nearly alike, and differ in this.
_COLOURS = 10.0


@dataclass(frozen=True, slots=True)
class Look:
    """
    Attributes:
        hash: 64 bits: whether each of 8 × 8 fields is brighter than its right neighbour ("difference hash").
        colours: mean RGB of 4 × 4 fields, 48 values.
    """

    hash: int
    colours: bytes


def look(picture: Image.Image) -> Look:
    """How an RGB picture looks."""
    small = picture.resize((9, 8), Image.Resampling.BOX).convert("L")
    grey = np.asarray(small, np.int16)  # [8, 9]
    bits = (grey[:, :-1] > grey[:, 1:]).ravel()  # [64]
    colours = picture.resize((4, 4), Image.Resampling.BOX)
    return Look(int.from_bytes(np.packbits(bits).tobytes(), "big"), colours.tobytes())


class Near:
    """Finds the first picture seen before that looks like one. Memory: about 300 bytes a picture.

    Two hashes at most ``distance`` bits apart agree in at least one of ``distance + 1`` bands of their bits, so only
    pictures that share a band are compared.

    Args:
        distance: bits, 0–15.
    """

    def __init__(self, distance: int):
        self.distance = distance
        edges = np.linspace(0, 64, distance + 2).astype(int)
        self._bands = [(int(low), (1 << int(high - low)) - 1) for low, high in pairwise(edges)]
        self._members: list[dict[int, list[int]]] = [defaultdict(list) for _ in self._bands]
        self._hashes: NDArray[np.uint64] = np.zeros(1024, np.uint64)
        self._colours: NDArray[np.uint8] = np.zeros((1024, 48), np.uint8)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def find(self, one: Look) -> int | None:
        """The number of the first such picture, in the order of ``add``; None for none."""
        places: set[int] = set()
        for (low, mask), members in zip(self._bands, self._members, strict=True):
            places.update(members.get(one.hash >> low & mask, ()))
        if not places:
            return None
        candidates = np.fromiter(sorted(places), np.int64, len(places))
        bits = np.bitwise_count(self._hashes[candidates] ^ np.uint64(one.hash))
        candidates = candidates[bits <= self.distance]
        colours = np.frombuffer(one.colours, np.uint8).astype(np.int16)
        differences = np.abs(self._colours[candidates].astype(np.int16) - colours).mean(axis=1)
        found = candidates[differences <= _COLOURS]
        return int(found[0]) if len(found) else None

    def add(self, one: Look) -> int:
        """Remembers a picture; returns its number, from 0."""
        number = self._size
        if number == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
            self._colours = np.concatenate([self._colours, np.zeros_like(self._colours)])
        self._hashes[number] = one.hash
        self._colours[number] = np.frombuffer(one.colours, np.uint8)
        for (low, mask), members in zip(self._bands, self._members, strict=True):
            members[one.hash >> low & mask].append(number)
        self._size += 1
        return number
