"""n-grams of the reference captions, sorted once, and what candidates have in common with them: BLEU's and CIDEr's.

Everything is integers in flat arrays. A caption's n-gram of order k is named by a pair (its first k-1 words' name, its
last word), so each order takes one sort of (name, position) packed into 64 bits; sorted that way, the occurrences of
one n-gram stand together, by image and by caption, which gives document frequencies, counts and maxima without a second
sort. Millions of words make each byte count, so numbers are kept as small as they are, and what can be had from others
at once (a pair's n-gram, its caption's number in the set) is not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Small = NDArray[np.int32]
#: Unsigned integers of as few bytes as the largest of them needs.
Smallest = NDArray[np.unsignedinteger[Any]]
Floats = NDArray[np.float64]

_FREE_BITS = 63  # of an int64
_BLOCK = 5_000  # captions whose words are apart at once
_HITS = 100_000  # n-grams that hit, multiplied at once


@dataclass(frozen=True)
class Order:
    """The references' n-grams of one length. P pairs (n-gram, image), O occurrences (n-gram, caption).

    Attributes:
        images: how many there are.
        keys: int64 [G], sorted: name of the first words · vocabulary + last word, of each n-gram.
        first_pair: int32 [G + 1], where an n-gram's pairs begin.
        image: int32 [P], the pairs' images, ascending within an n-gram.
        most: [P], the most that one of the image's captions has of the n-gram.
        size: [P], how many of the image's captions have it: its occurrences.
        caption: [O], which of its image's captions it is, and ``count``: [O], how often the caption has the n-gram.
        norm: float64 [captions], length of each caption's tf-idf vector.
    """

    images: int
    keys: Ints
    first_pair: Small
    image: Small
    most: Smallest
    size: Smallest
    caption: Smallest
    count: Smallest
    norm: Floats

    @cached_property
    def first_occurrence(self) -> Small:
        """int32 [P], where a pair's occurrences begin. Only joins need it, so that building takes less memory."""
        begins: Small = np.cumsum(self.size, dtype=np.int32)
        begins -= self.size
        return begins

    def idf(self, name: Ints | Small) -> Floats:
        """ln(images) - ln(images with the n-gram), as many as names of n-grams."""
        frequency = self.first_pair[name + 1] - self.first_pair[name]
        weight: Floats = np.log(float(self.images)) - np.log(frequency.astype(np.float64))
        return weight

    def find(self, name: Ints, image: Ints) -> tuple[Ints, Ints]:
        """Looks up pairs (n-gram, image). It takes no time over the pairs that are not asked for.

        Args:
            name: int64 [Q], fastest in ascending order.
            image: int64 [Q].

        Returns:
            The indices of the Q that exist, ascending, and their pairs.
        """
        pair, last = self.first_pair[name], self.first_pair[name + 1] - np.int32(1)
        longest = int((last - pair).max(initial=0))
        step = 1 << longest.bit_length() >> 1
        while step:  # one binary search for all: a pair moves on while its image is not beyond the one asked for
            further = np.minimum(pair + np.int32(step), last)
            pair = np.where(self.image[further] <= image, further, pair)
            step >>= 1
        exists = np.flatnonzero(self.image[pair] == image)
        return exists, pair[exists].astype(np.int64)


@dataclass(frozen=True)
class Overlap:
    """What n candidates have in common with their images' references, R comparisons in all.

    Attributes:
        matches: int64 [n, orders], a candidate's n-grams, each counted no more often than in the reference that has
            most.
        cosines: float64 [R], sum over the orders of the cosine of the tf-idf vectors of candidate and reference (an
            n-gram in no reference weighs as one in one image).
        clipped: float64 [R], the same with n-grams counted no more often than the reference has them (CIDEr-D).
    """

    matches: Ints
    cosines: Floats
    clipped: Floats


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
        lengths, numbers = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
        for begin in range(0, len(captions), _BLOCK):
            split = [caption.split() for caption in captions[begin : begin + _BLOCK]]
            words = list(chain.from_iterable(split))
            for word in dict.fromkeys(words):
                self.vocabulary.setdefault(word, len(self.vocabulary))
            lengths.append(np.fromiter(map(len, split), np.int64, len(split)))
            numbers.append(np.fromiter(map(self.vocabulary.__getitem__, words), np.int32, len(words)))
        self.lengths = np.concatenate(lengths)  # int64 [R], in words
        self._words = np.concatenate(numbers)  # int32 [W], until ``orders`` are built
        self.pair_of_word = np.zeros(0, np.int32)  # int32 [W] after ``orders``, index into the first order's pairs
        self.log_images = float(np.log(float(self.images)))

    @cached_property
    def orders(self) -> tuple[Order, ...]:
        built = []
        names, sizes = self._words, self.lengths
        caption_of = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        left: Small = np.repeat(np.cumsum(sizes, dtype=np.int32), sizes)  # words from here to the caption's end
        left -= np.arange(len(names), dtype=np.int32)
        for k in range(self.ORDERS):
            key, position = self._sorted(k, names, left)
            starts = _changes(key)
            keys = key[starts]
            del key
            order, pair = self._order(keys, starts, caption_of[position])
            built.append(order)
            if k == 0:
                self.pair_of_word = np.empty(len(position), np.int32)
                self.pair_of_word[position] = pair
            del pair
            names = np.zeros(len(left), np.int32)
            names[position] = np.cumsum(starts, dtype=np.int32) - np.int32(1)
        self._words = np.zeros(0, np.int32)
        return tuple(built)

    def _sorted(self, k: int, names: Small, left: Small) -> tuple[Ints, Small]:
        """The n-grams of k + 1 words, in order, and the positions where they begin, ascending within equal ones.

        Args:
            names: [W], of the n-grams of k words that begin at each word; for k = 0 the words' own.
            left: [W], words from here to the caption's end.
        """
        at = np.flatnonzero(left > k).astype(np.int32)
        key = names[at].astype(np.int64)
        if k:
            key *= len(self.vocabulary)
            key += self._words[at + k]
        return _sort_with_positions(key, at)

    def _order(self, keys: Ints, starts: NDArray[np.bool_], caption: Small) -> tuple[Order, Small]:
        """Counts n-grams.

        Args:
            keys: int64 [G].
            starts: bool [n-grams, sorted], whether it is another than the one before.
            caption: int32 [n-grams, sorted].

        Returns:
            The order; and each n-gram's pair, int32 [n-grams, sorted].
        """
        many = len(starts)
        occurrence = np.flatnonzero(starts | _changes(caption)).astype(np.int32)
        count = _smallest(np.diff(occurrence, append=np.int32(many)))
        starts, caption = starts[occurrence], caption[occurrence]
        image = self.image_of.astype(np.int32)[caption]
        starts_image = starts | _changes(image)
        first = np.flatnonzero(starts_image).astype(np.int32)
        order = Order(
            images=self.images,
            keys=keys,
            first_pair=np.append(np.flatnonzero(starts[first]), len(first)).astype(np.int32),
            image=image[first],
            most=np.maximum.reduceat(count, first) if many else count,
            size=_smallest(np.diff(first, append=np.int32(len(occurrence)))),
            caption=_smallest(caption - self.start.astype(np.int32)[image]),
            count=count,
            norm=np.zeros(len(self.lengths)),
        )
        pair = np.repeat(np.cumsum(starts_image, dtype=np.int32) - np.int32(1), count)
        del image, starts_image
        often = np.diff(np.append(np.flatnonzero(starts), len(starts)))  # captions with the n-gram
        weight = np.repeat(order.idf(np.arange(len(keys))), often)
        weight *= count
        weight *= weight
        np.sqrt(np.bincount(caption, weight, minlength=len(self.lengths)), out=order.norm)
        return order, pair

    def join(self, captions: Sequence[str], images: Sequence[int] | None = None) -> CandidateNgrams:
        """Looks up candidate captions.

        Args:
            captions: n captions, tokens separated by white space.
            images: n indices of the images that they describe, in any order, an image any number of times. None: one
                caption for each image, in the order of the images.
        """
        return CandidateNgrams(self, captions, images)


class CandidateNgrams:
    """n candidates joined with the index; see :meth:`ReferenceNgrams.join`.

    Attributes:
        image: int64 [n], the image of each candidate.
        candidate_of: int64 [R], the candidate of each comparison with a reference: each candidate is compared with all
            references of its image, R comparisons in all.
        reference_of: int64 [R], the reference caption of each comparison.
        lengths: int64 [n], in words.
        words: int64 [W], the words of all candidates as indices into the vocabulary, or beyond it.
    """

    def __init__(self, index: ReferenceNgrams, captions: Sequence[str], images: Sequence[int] | None = None):
        self.index = index
        if images is None:
            self.image = np.arange(index.images)
            self._first, self.candidate_of = index.start, index.image_of
            self.reference_of = np.arange(len(index.lengths))
        else:
            self.image = np.array(images, np.int64)
            references = index.per_image[self.image]
            self._first = np.cumsum(references) - references  # int64 [n], each candidate's first comparison
            self.candidate_of = np.repeat(np.arange(len(self.image)), references)
            self.reference_of = np.arange(len(self.candidate_of))
            self.reference_of += np.repeat(index.start[self.image] - self._first, references)
        split = [caption.split() for caption in captions]
        self.lengths = np.fromiter(map(len, split), np.int64, len(split))
        words = list(chain.from_iterable(split))
        vocabulary = index.vocabulary
        self.words = np.fromiter((vocabulary.get(word, -1) for word in words), np.int64, len(words))
        unknown = np.flatnonzero(self.words < 0)
        own: dict[str, int] = {}  # words of no reference still count in lengths and norms
        for position in unknown.tolist():
            self.words[position] = len(vocabulary) + own.setdefault(words[position], len(own))
        self.vocabulary_size = len(vocabulary) + len(own)

    @cached_property
    def overlap(self) -> Overlap:
        index, candidates = self.index, len(self.lengths)
        known_words = len(index.vocabulary)
        candidate = np.repeat(np.arange(candidates), self.lengths)
        left = np.repeat(np.cumsum(self.lengths), self.lengths) - np.arange(len(self.words))
        names, known_before = self.words, known_words
        comparisons = len(self.candidate_of)
        overlap = Overlap(np.zeros((candidates, index.ORDERS), np.int64), np.zeros(comparisons), np.zeros(comparisons))
        for k, order in enumerate(index.orders):
            at = np.flatnonzero(left > k)
            if k == 0:
                name = names[at]
            else:
                before, last = names[at], self.words[at + k]
                possible = np.flatnonzero((before < known_before) & (last < known_words))
                hit, where = _look_up(order.keys, before[possible] * known_words + last[possible])
                name = np.full(len(at), -1)
                name[possible[hit]] = where
                missed = np.flatnonzero(name < 0)
                _, own_name = np.unique(before[missed] * self.vocabulary_size + last[missed], return_inverse=True)
                name[missed] = len(order.keys) + own_name
            overlap.matches[:, k] = self._add(order, name * candidates + candidate[at], overlap)
            names = np.zeros_like(self.words)
            names[at] = name
            known_before = len(order.keys)
        return overlap

    def _add(self, order: Order, key: Ints, to: Overlap) -> Ints:
        """Adds one order's cosines, and gives its matches [n].

        Args:
            key: int64, name · n + candidate of every n-gram of the candidates; overwritten.
        """
        index, candidates = self.index, len(self.lengths)
        key.sort()
        start = np.flatnonzero(_changes(key))
        count = np.diff(start, append=len(key))
        name, candidate = np.divmod(key[start], candidates)
        known = int(np.searchsorted(name, len(order.keys)))
        idf = np.full(len(start), index.log_images)
        idf[:known] = order.idf(name[:known])
        hit, pair = order.find(name[:known], self.image[candidate[:known]])
        weight = count * idf
        norm = np.sqrt(np.bincount(candidate, weight * weight, minlength=candidates))
        norms = norm[self.candidate_of] * order.norm[self.reference_of]
        candidate, count, idf, weight = candidate[hit], count[hit], idf[hit], weight[hit]
        whole, clipped = np.zeros(len(norms)), np.zeros(len(norms))
        for begin in range(0, len(hit), _HITS):
            some = slice(begin, begin + _HITS)
            begins, size = order.first_occurrence[pair[some]], order.size[pair[some]].astype(np.int64)
            # each n-gram that hit, once for every reference of the image that has it
            occurrence = np.arange(int(size.sum())) + np.repeat(begins - np.cumsum(size) + size, size)
            comparison = order.caption[occurrence] + np.repeat(self._first[candidate[some]], size)
            own = np.repeat(weight[some], size)
            reference = order.count[occurrence] * np.repeat(idf[some], size)
            whole += np.bincount(comparison, own * reference, minlength=len(norms))
            clipped += np.bincount(comparison, np.minimum(own, reference) * reference, minlength=len(norms))
        for sums, dot in ((to.cosines, whole), (to.clipped, clipped)):
            sums += np.divide(dot, norms, out=dot, where=norms != 0)  # where they are 0, the products are
        matches = np.bincount(candidate, np.minimum(order.most[pair], count), minlength=candidates)
        return matches.astype(np.int64)


def _changes(values: Ints | Small) -> NDArray[np.bool_]:
    """bool [len]: whether a value differs from the one before it; the first does."""
    changed = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=changed[1:])
    return changed


def _smallest(values: Small) -> Smallest:
    """The same numbers, none below 0, in as few bytes as hold them."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))


def _look_up(table: Ints, wanted: Ints) -> tuple[Ints, Ints]:
    """Indices of the wanted keys that a sorted table has, and where in the table they stand."""
    if not len(table):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    where = np.searchsorted(table, wanted)
    where[where == len(table)] = 0
    found = np.flatnonzero(table[where] == wanted)
    return found, where[found]


def _sort_with_positions(key: Ints, at: Small) -> tuple[Ints, Small]:
    """Sorts keys (the array itself is used up), ascending positions within equal keys."""
    if not len(key):
        return key, at
    bits = int(at[-1]).bit_length()
    if int(key.max()) < 1 << max(0, _FREE_BITS - bits):  # sorting plain integers is several times faster than argsort
        key <<= bits
        key |= at
        key.sort()
        position = np.empty(len(key), np.int32)
        np.bitwise_and(key, (1 << bits) - 1, out=position, casting="unsafe")  # without another int64 for each
        key >>= bits
        return key, position
    order = np.argsort(key, kind="stable")
    return key[order], at[order]
