"""Images that look the same though their bytes differ: other sizes, other compression, small retouches."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: The colours of two such images differ by at most this many levels (of 255) on average, over 4 × 4 fields. Uniform
#: images (sky, sea, deserts) have nearly the same hashes; their colours tell them apart.
_COLOUR_DISTANCE = 10.0


@dataclass(frozen=True, slots=True)
class PerceptualHash:
    """How an image looks, in 56 bytes.

    Attributes:
        hash: 64 bits: whether each of 8 × 8 fields is brighter than its right neighbour ("difference hash").
        colours: mean RGB of 4 × 4 fields, 48 values.
    """

    hash: int
    colours: bytes


def perceptual_hash(picture: Image.Image) -> PerceptualHash:
    """The hash of an RGB image."""
    small = picture.resize((9, 8), Image.Resampling.BOX).convert("L")
    grey = np.asarray(small, np.int16)  # [8, 9]
    bits = (grey[:, :-1] > grey[:, 1:]).ravel()  # [64]
    colours = picture.resize((4, 4), Image.Resampling.BOX)
    return PerceptualHash(int.from_bytes(np.packbits(bits).tobytes(), "big"), colours.tobytes())


class NearDuplicates:
    """Finds the first image added before that looks like a given one. Memory: about 300 bytes per image.

    Two hashes that differ in at most ``distance`` bits agree in at least one of ``distance + 1`` bands of bits, so only
    images that share a band are compared.

    Args:
        distance: number of bits, 0–15.
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

    def find(self, hashed: PerceptualHash) -> int | None:
        """The index of the first such image, in the order of ``add``; None if there is none."""
        indices: set[int] = set()
        for (low, mask), members in zip(self._bands, self._members, strict=True):
            indices.update(members.get(hashed.hash >> low & mask, ()))
        if not indices:
            return None
        candidates = np.fromiter(sorted(indices), np.int64, len(indices))
        bits = np.bitwise_count(self._hashes[candidates] ^ np.uint64(hashed.hash))
        candidates = candidates[bits <= self.distance]
        colours = np.frombuffer(hashed.colours, np.uint8).astype(np.int16)
        differences = np.abs(self._colours[candidates].astype(np.int16) - colours).mean(axis=1)
        matches = candidates[differences <= _COLOUR_DISTANCE]
        return int(matches[0]) if len(matches) else None

    def add(self, hashed: PerceptualHash) -> int:
        """Adds an image; returns its index."""
        index = self._size
        if index == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
            self._colours = np.concatenate([self._colours, np.zeros_like(self._colours)])
        self._hashes[index] = hashed.hash
        self._colours[index] = np.frombuffer(hashed.colours, np.uint8)
        for (low, mask), members in zip(self._bands, self._members, strict=True):
            members[hashed.hash >> low & mask].append(index)
        self._size += 1
        return index
