"""n-grams of the reference captions, sorted once, and the join of candidates with them that BLEU and CIDEr share.

Everything is integers in flat arrays. A caption's n-gram of order k is named by a pair (its first k-1 words' name, its
last word), so each order takes one sort of (name, position) packed into 64 bits; sorted that way, the occurrences of
one n-gram stand together, by image and by caption, which gives document frequencies, counts and maxima without a second
sort.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_FREE_BITS = 63  # of an int64
_BLOCK = 20_000  # captions whose words are apart at once


@dataclass(frozen=True)
class Order:
    """The references' n-grams of one length. P pairs (n-gram, image), O occurrences (n-gram, caption).

    Attributes:
        keys: int64 [G], sorted: name of the first words · vocabulary + last word, of each n-gram.
        pairs: int64 [P], sorted: n-gram · images + image.
        most: int32 [P], the most that one of the image's captions has of the n-gram.
        first: int32 [P + 1], where a pair's occurrences begin.
        caption: int32 [O], and ``count``: int32 [O], how often the caption has the n-gram.
        idf: float64 [G], ln(images) - ln(images with the n-gram).
        norm: float64 [captions], length of each caption's tf-idf vector.
    """

    keys: Ints
    pairs: Ints
    most: NDArray[np.int32]
    first: NDArray[np.int32]
    caption: NDArray[np.int32]
    count: NDArray[np.int32]
    idf: Floats
    norm: Floats


@dataclass(frozen=True)
class Join:
    """One order of the candidates' n-grams. C distinct n-grams by image, H of them also in the image's references.

    Attributes:
        image: int64 [C], and ``count``: int64 [C].
        weight: float64 [C], count · idf (an n-gram in no reference counts as in one image).
        hit: int64 [H], which of the C, and ``pair``: int64 [H], the references' pair it meets.
    """

    image: Ints
    count: Ints
    weight: Floats
    hit: Ints
    pair: Ints


class ReferenceNgrams:
    """The index over R reference captions of n images.

    Args:
        captions: R captions, tokens separated by white space, image by image.
        per_image: int64 [n], how many captions each image has (at least one).
    """

    ORDERS = 4

    def __init__(self, captions: Sequence[str], per_image: Ints):
        self.images = len(per_image)
        self.per_image = per_image
        self.start = np.cumsum(per_image) - per_image  # int64 [n], each image's first caption
        self.image_of = np.repeat(np.arange(self.images), per_image)  # int64 [R]
        self.vocabulary: dict[str, int] = {}
        lengths, numbers = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for begin in range(0, len(captions), _BLOCK):
            split = [caption.split() for caption in captions[begin : begin + _BLOCK]]
            words = list(chain.from_iterable(split))
            for word in dict.fromkeys(words):
                self.vocabulary.setdefault(word, len(self.vocabulary))
            lengths.append(np.fromiter(map(len, split), np.int64, len(split)))
            numbers.append(np.fromiter(map(self.vocabulary.__getitem__, words), np.int64, len(words)))
        self.lengths = np.concatenate(lengths)  # int64 [R], in words
        self.words = np.concatenate(numbers)  # int64 [W]
        self.pair_of_word = np.zeros(len(self.words), np.int64)  # int64 [W], index into the first order's pairs
        self.log_images = float(np.log(float(self.images)))

    @cached_property
    def orders(self) -> tuple[Order, ...]:
        built = []
        names: Ints | NDArray[np.int32] = self.words
        sizes, small = self.lengths, np.int32  # half of an int64: with millions of words that counts
        caption_of = np.repeat(np.arange(len(sizes), dtype=small), sizes)
        left = np.repeat(np.cumsum(sizes, dtype=small), sizes) - np.arange(len(self.words), dtype=small)  # to the end
        for k in range(self.ORDERS):
            order, place, name = self._order(k, names, left, caption_of)
            names = np.zeros(len(self.words), small)
            names[place] = name
            if k == 0:
                size = np.add.reduceat(order.count, order.first[:-1]) if len(order.pairs) else order.first[:-1]
                self.pair_of_word[place] = np.repeat(np.arange(len(order.pairs)), size)
            del place, name
            built.append(order)
        return tuple(built)

    def _order(
        self, k: int, names: Ints | NDArray[np.int32], left: NDArray[np.int32], caption_of: NDArray[np.int32]
    ) -> tuple[Order, Ints, NDArray[np.int32]]:
        """Sorts the n-grams of k + 1 words.

        Args:
            names: [W], of the n-grams of k words that begin at each word; for k = 0 the words' own.
            left: [W], words from here to the caption's end.
            caption_of: [W].

        Returns:
            The order; and where each n-gram begins, and its name, int64 and int32 [n-grams].
        """
        at = np.flatnonzero(left > k)
        key = names[at].astype(np.int64)
        if k:
            key *= len(self.vocabulary)
            key += self.words[at + k]
        key, place = _sort_with_positions(key, at)
        del at
        caption = caption_of[place]
        image = self.image_of[caption]
        starts_name = _changes(key)
        starts_caption = starts_name | _changes(caption)
        starts_image = starts_name | _changes(image)
        name = np.cumsum(starts_name, dtype=np.int32) - np.int32(1)
        occurrence = np.flatnonzero(starts_caption)
        count = np.diff(occurrence, append=len(key))
        pair = np.flatnonzero(starts_image)
        first = np.searchsorted(occurrence, pair)
        keys = key[starts_name]
        frequency = np.bincount(name[pair], minlength=len(keys))
        idf = self.log_images - np.log(np.maximum(1.0, frequency.astype(np.float64)))
        weight = count * idf[name[occurrence]]
        norm = np.sqrt(np.bincount(caption[occurrence], weight * weight, minlength=len(self.lengths)))
        order = Order(
            keys=keys,
            pairs=name[pair].astype(np.int64) * self.images + image[pair],
            most=np.maximum.reduceat(count, first).astype(np.int32) if len(pair) else np.zeros(0, np.int32),
            first=np.append(first, len(occurrence)).astype(np.int32),
            caption=caption[occurrence].astype(np.int32),
            count=count.astype(np.int32),
            idf=idf,
            norm=norm,
        )
        return order, place, name

    def join(self, captions: Sequence[str]) -> CandidateNgrams:
        """Looks one candidate caption an image up.

        Args:
            captions: n captions, tokens separated by white space, in the order of the images.
        """
        return CandidateNgrams(self, captions)


class CandidateNgrams:
    """n candidates joined with the index; see :meth:`ReferenceNgrams.join`."""

    def __init__(self, index: ReferenceNgrams, captions: Sequence[str]):
        self.index = index
        split = [caption.split() for caption in captions]
        self.lengths = np.fromiter(map(len, split), np.int64, len(split))  # int64 [n], in words
        words = list(chain.from_iterable(split))
        vocabulary = index.vocabulary
        self.words = np.fromiter((vocabulary.get(word, -1) for word in words), np.int64, len(words))
        unknown = np.flatnonzero(self.words < 0)
        own: dict[str, int] = {}  # words of no reference still count in lengths and norms
        for position in unknown.tolist():
            self.words[position] = len(vocabulary) + own.setdefault(words[position], len(own))
        self.vocabulary_size = len(vocabulary) + len(own)

    @cached_property
    def joins(self) -> tuple[Join, ...]:
        index = self.index
        known_words = len(index.vocabulary)
        image_of = np.repeat(np.arange(index.images), self.lengths)
        left = np.repeat(np.cumsum(self.lengths), self.lengths) - np.arange(len(self.words))
        names, known_before = self.words, known_words
        built = []
        for k, order in enumerate(index.orders):
            at = np.flatnonzero(left > k)
            if k == 0:
                name, size = names[at], self.vocabulary_size
            else:
                before, last = names[at], self.words[at + k]
                possible = np.flatnonzero((before < known_before) & (last < known_words))
                found, where = _look_up(order.keys, before[possible] * known_words + last[possible])
                name = np.full(len(at), -1)
                name[possible[found]] = where
                missed = np.flatnonzero(name < 0)
                own, own_name = np.unique(before[missed] * self.vocabulary_size + last[missed], return_inverse=True)
                name[missed] = len(order.keys) + own_name
                size = len(order.keys) + len(own)
            built.append(self._join(order, image_of[at] * max(size, 1) + name, max(size, 1)))
            names = np.zeros_like(self.words)
            names[at] = name
            known_before = len(order.keys)
        return tuple(built)

    def _join(self, order: Order, key: Ints, size: int) -> Join:
        """``key``: image · size + name of every n-gram of the candidates."""
        key = np.sort(key)
        start = np.flatnonzero(_changes(key))
        count = np.diff(start, append=len(key))
        image, name = np.divmod(key[start], size)
        known = np.flatnonzero(name < len(order.keys))
        idf = np.full(len(start), self.index.log_images)
        idf[known] = order.idf[name[known]]
        found, pair = _look_up(order.pairs, name[known] * self.index.images + image[known])
        return Join(image=image, count=count, weight=count * idf, hit=known[found], pair=pair)


def _changes(values: Ints) -> NDArray[np.bool_]:
    """bool [len]: whether a value differs from the one before it; the first does."""
    changed = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=changed[1:])
    return changed


def _look_up(table: Ints, wanted: Ints) -> tuple[Ints, Ints]:
    """Indices of the wanted keys that a sorted table has, and where in the table they stand."""
    if not len(table):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    where = np.searchsorted(table, wanted)
    where[where == len(table)] = 0
    found = np.flatnonzero(table[where] == wanted)
    return found, where[found]


def _sort_with_positions(key: Ints, at: Ints) -> tuple[Ints, Ints]:
    """Sorts keys (the array itself is used up), ascending positions within equal keys."""
    if not len(key):
        return key, at
    bits = int(at[-1]).bit_length()
    if int(key.max()) < 1 << max(0, _FREE_BITS - bits):  # sorting plain integers is several times faster than argsort
        key <<= bits
        key |= at
        key.sort()
        place = key & ((1 << bits) - 1)
        key >>= bits
        return key, place
    order = np.argsort(key, kind="stable")
    return key[order], at[order]
