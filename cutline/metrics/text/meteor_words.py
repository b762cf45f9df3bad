"""Captions as METEOR's search takes them: numbers of words and phrases, with each word's stem and synsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cutline.metrics.text.meteor_data import LONGEST, Hashes, MeteorData, mix
from cutline.metrics.text.meteor_text import normalise
from cutline.metrics.text.porter2 import stem

Ints = NDArray[np.int32]
#: C captions: where each one's words begin, int32 [C + 1], and the words, int32 [W].
Words = tuple[Ints, Ints]

#: Endings that a word may lose on its way to the dictionary, in the order of trying.
_ENDINGS = (
    ("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y"),
    ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""), ("er", ""), ("est", ""), ("er", "e"),
    ("est", "e"),
)  # fmt: skip


@dataclass(frozen=True)
class Encoded:
    """C captions.

    Attributes:
        first: int32 [C + 1], where a caption's words begin.
        words: int32 [W].
        phrase_first: int32 [C + 1], where its phrases begin.
        phrases: int32 [3, phrases]: first word within the caption, words, number in the index of paraphrases; by first
            word, then by words.
    """

    first: Ints
    words: Ints
    phrase_first: Ints
    phrases: Ints


class Lexicon:
    """The words met so far; grows as captions are encoded."""

    def __init__(self, data: MeteorData):
        self.data = data
        self._number: dict[str, int] = {}
        self._stems: dict[str, int] = {}
        self._stem: list[int] = []
        self._synsets: list[int] = []
        self._synset_first: list[int] = [0]
        self._function: list[bool] = []
        self._in_phrases: list[int] = []

    def _add(self, word: str) -> int:
        number = self._number[word] = len(self._number)
        self._stem.append(self._stems.setdefault(stem(word), len(self._stems)))
        self._synsets.extend(sorted(self._synsets_of(word)))
        self._synset_first.append(len(self._synsets))
        self._function.append(word in self.data.function_words)
        self._in_phrases.append(self.data.paraphrases.words.get(word, 0))
        return number

    def _synsets_of(self, word: str) -> set[int]:
        """The synsets of a word and of its base; as WordNet's morphology finds it, but for the order of the endings."""
        found = set(self.data.synsets_of(word))
        if word in self.data.exceptions:
            for base in self.data.exceptions[word]:
                found.update(self.data.synsets_of(base))
        elif len(word) > 2 and not word.endswith("ss"):
            for ending, to in _ENDINGS:
                base = word[: -len(ending)] + to
                if word.endswith(ending) and base in self.data.synsets:
                    found.update(self.data.synsets_of(base))
                    break
        return found

    def words(self, captions: Sequence[str]) -> Words:
        """Args: captions: tokens with spaces between them."""
        number, add, known = self._number, self._add, self.data.prefixes
        words: list[int] = []
        lengths = np.empty(len(captions), np.int32)
        for index, caption in enumerate(captions):
            tokens = normalise(caption, known)
            lengths[index] = len(tokens)
            words.extend([number[token] if token in number else add(token) for token in tokens])
        first = np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)])
        return first, np.array(words, np.int32)

    def encode(self, words: Words) -> Encoded:
        """Looks up the phrases, which take three times the memory of the words."""
        return Encoded(*words, *self._phrases(*words))

    def _phrases(self, first: Ints, words: Ints) -> tuple[Ints, Ints]:
        """The captions' phrases that the index knows: see :class:`Encoded`."""
        numbers = np.array(self._in_phrases, np.uint64)[words] if len(words) else np.zeros(0, np.uint64)
        ends = np.repeat(first[1:], np.diff(first))
        at = np.arange(len(words))
        hashes: Hashes = np.zeros(len(words), np.uint64)
        found: list[tuple[NDArray[np.int64], NDArray[np.int64], int]] = []
        for length in range(1, LONGEST + 1):
            last = at + length - 1
            keep = last < ends[at]
            at, hashes, last = at[keep], hashes[keep], last[keep]
            keep = numbers[last] != 0
            at, hashes = at[keep], mix(hashes[keep], numbers[last[keep]])
            known = self.data.paraphrases.find(hashes)
            hit = known >= 0
            found.append((at[hit], known[hit], length))
        starts = np.concatenate([item[0] for item in found])
        indices = np.concatenate([item[1] for item in found])
        sizes = np.concatenate([np.full(len(item[0]), item[2]) for item in found])
        order = np.argsort(starts, kind="stable")  # sizes are ascending already
        caption = np.searchsorted(first, starts[order], side="right") - 1
        phrases = np.stack([starts[order] - first[caption], sizes[order], indices[order]]).astype(np.int32)
        return np.searchsorted(caption, np.arange(len(first))).astype(np.int32), phrases

    @property
    def stems(self) -> Ints:
        return np.array(self._stem, np.int32)

    @property
    def synset_first(self) -> Ints:
        return np.array(self._synset_first, np.int32)

    @property
    def synsets(self) -> Ints:
        return np.array(self._synsets, np.int32)

    @property
    def function(self) -> NDArray[np.bool_]:
        return np.array(self._function, np.bool_)

    def paraphrases(self, mine: Encoded, theirs: Encoded) -> tuple[Ints, Ints, Ints, Ints]:
        """The paraphrases among the phrases of some captions.

        Returns:
            Both captions' phrases, renumbered; where each phrase's paraphrases begin; the paraphrases.
        """
        index = self.data.paraphrases
        known = np.unique(np.concatenate([mine.phrases[2], theirs.phrases[2]]))
        begin, sizes = index.first[known], index.first[known + 1] - index.first[known]
        ends = np.cumsum(sizes, dtype=np.int64)
        entries = index.others[np.arange(int(sizes.sum())) + np.repeat(begin - (ends - sizes), sizes)]
        others = np.minimum(np.searchsorted(known, entries), max(len(known) - 1, 0)).astype(np.int32)
        hit = known[others] == entries if len(known) else np.zeros(0, np.bool_)
        hits = np.concatenate([np.zeros(1, np.int64), np.cumsum(hit)])
        first = hits[np.concatenate([np.zeros(1, np.int64), ends])].astype(np.int32)
        renumbered = [
            np.vstack([item.phrases[:2], np.searchsorted(known, item.phrases[2]).astype(np.int32)])
            for item in (mine, theirs)
        ]
        return renumbered[0], renumbered[1], first, others[hit]
