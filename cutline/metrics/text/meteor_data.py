"""METEOR's data, read from an installed pycocoevalcap: function words, WordNet synonyms, paraphrases.

The package carries them as text inside ``meteor-1.5.jar`` (a zip file) and ``paraphrase-en.gz``; nothing here runs
Java. The 5 million paraphrases are turned into an index once, which later runs map into memory.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import logging
import os
import shutil
import zipfile
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cutline.core.cache import cache_root
from cutline.core.errors import ScoreError
from cutline.metrics.text.meteor_text import prefixes

logger = logging.getLogger(__name__)

_JAR, _TABLE = "meteor-1.5.jar", "data/paraphrase-en.gz"
#: Counted up when the index's layout changes.
_LAYOUT = 4
_LINES = 600_000  # of the paraphrase file at once: 200,000 pairs
_SHIFT = 42  # hashes are found by their first 22 bits
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
#: The most words of a phrase.
LONGEST = 7

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Paraphrases:
    """P phrases and, for each, the paraphrases listed for it.

    Attributes:
        words: word → number, from 1.
        hashes: uint64 [P], sorted; see :func:`phrase_hashes`.
        bucket: int32 [2**22 + 1], where the hashes that begin with given 22 bits begin.
        first: int32 [P + 1], where a phrase's paraphrases begin.
        others: int32 [M], the paraphrases' indices in ``hashes``, in METEOR's order (its search follows it).
    """

    words: dict[str, int]
    hashes: Hashes
    bucket: NDArray[np.int32]
    first: NDArray[np.int32]
    others: NDArray[np.int32]

    def find(self, hashes: Hashes) -> NDArray[np.int64]:
        """int64, one for each hash: its index, -1 where there is no such phrase."""
        top = (hashes >> np.uint64(_SHIFT)).astype(np.int64)
        index, last = self.bucket[top].astype(np.int64), self.bucket[top + 1]
        found = np.full(len(hashes), -1, np.int64)
        open_ = np.flatnonzero(index < last)
        while len(open_):
            here = index[open_]
            hit = self.hashes[here] == hashes[open_]
            found[open_[hit]] = here[hit]
            open_ = open_[~hit]
            index[open_] += 1
            open_ = open_[index[open_] < last[open_]]
        return found


class Synsets:
    """Word → the numbers of its synsets, as a dict would have them, in a fifth of its memory.

    Args:
        text: a line with a word, a line with its numbers, and so on.
    """

    def __init__(self, text: str):
        lines = text.split("\n")
        starts = np.cumsum([0, *(len(line) + 1 for line in lines[:-1])], dtype=np.int64)[: len(lines) // 2 * 2 : 2]
        hashes = np.fromiter((hash(word) for word in lines[: len(starts) * 2 : 2]), np.int64, len(starts))
        order = np.argsort(hashes, kind="stable")
        self._text = text + "\n"
        self._hashes, self._starts = array("q", hashes[order].tobytes()), array("q", starts[order].tobytes())

    def get(self, word: str, default: str) -> str:
        key = hash(word)
        index = bisect_left(self._hashes, key)
        while index < len(self._hashes) and self._hashes[index] == key:
            start = self._starts[index]
            if self._text.startswith(f"{word}\n", start):
                begin = start + len(word) + 1
                return self._text[begin : self._text.index("\n", begin)]
            index += 1
        return default

    def __contains__(self, word: str) -> bool:
        return self.get(word, "\n") != "\n"


@dataclass(frozen=True)
class MeteorData:
    """METEOR 1.5's resources for English."""

    function_words: frozenset[str]
    prefixes: frozenset[str]
    synsets: Synsets | dict[str, str]  # numbers with spaces between them; parsed when needed
    exceptions: dict[str, tuple[str, ...]]
    paraphrases: Paraphrases

    def synsets_of(self, word: str) -> list[int]:
        return [int(number) for number in self.synsets.get(word, "").split()]


def is_available() -> bool:
    """Whether pycocoevalcap is installed."""
    return importlib.util.find_spec("pycocoevalcap") is not None


def find_files() -> Path:
    """The folder with METEOR's data, in the installed pycocoevalcap.

    Raises:
        ScoreError: pycocoevalcap is not installed, or its data is missing.
    """
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        raise ScoreError(
            "METEOR needs the data of the package pycocoevalcap.", 'Install it: pip install "cutline[meteor]".'
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "meteor"
    missing = [name for name in (_JAR, _TABLE) if not (folder / name).is_file()]
    if missing:
        raise ScoreError(
            f"The installed pycocoevalcap lacks METEOR's data ({', '.join(missing)}).",
            'Reinstall it: pip install --force-reinstall "cutline[meteor]".',
        )
    return folder


@cache
def load() -> MeteorData:
    """Reads the data; builds the index of paraphrases the first time (docs/metrics.md says how long that takes).

    Raises:
        ScoreError: pycocoevalcap is not installed, or its data is missing.
    """
    folder = find_files()
    with zipfile.ZipFile(folder / _JAR) as jar:

        def lines(name: str) -> list[str]:
            return jar.read(name).decode("utf-8").splitlines()

        exceptions: dict[str, tuple[str, ...]] = {}
        for base, forms in _pairs(lines("synonym/english.exceptions")):
            for form in forms.split():
                exceptions[form] = (*exceptions.get(form, ()), base)
        return MeteorData(
            function_words=frozenset(lines("function/english.words")),
            prefixes=prefixes(jar.read("nonbreaking/english.prefixes").decode("utf-8")),
            synsets=Synsets(jar.read("synonym/english.synsets").decode("utf-8")),
            exceptions=exceptions,
            paraphrases=_paraphrases(folder / _TABLE),
        )


def _pairs(lines: list[str]) -> Iterator[tuple[str, str]]:
    return zip(lines[::2], lines[1::2], strict=True)


def _paraphrases(path: Path) -> Paraphrases:
    stamp = path.stat()
    key = hashlib.sha256(f"{_LAYOUT} {stamp.st_size} {_LINES}".encode()).hexdigest()[:12]
    folder = cache_root() / f"meteor-{key}"
    if not folder.exists():
        _build(path, folder)
    words = (folder / "words.txt").read_text(encoding="utf-8").split("\n")
    return Paraphrases(
        words={word: number for number, word in enumerate(words, 1)},
        hashes=np.load(folder / "hashes.npy", mmap_mode="r"),
        bucket=np.load(folder / "bucket.npy"),
        first=np.load(folder / "first.npy", mmap_mode="r"),
        others=np.load(folder / "others.npy", mmap_mode="r"),
    )


class _Numbers(dict[str, int]):
    """Gives each new word the next number, from 1."""

    def __missing__(self, word: str) -> int:
        number = len(self) + 1
        self[word] = number
        return number


def _build(path: Path, folder: Path) -> None:
    """Turns the text (three lines each: probability, phrase, phrase) into the index."""
    numbers = _Numbers()
    sources: list[Hashes] = []
    targets: list[Hashes] = []
    logger.info("building METEOR's index once (about 40 s)")
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        while lines := [line.rstrip("\n") for line in islice(file, _LINES)]:
            sources.append(_hash_phrases(lines[1::3], numbers))
            targets.append(_hash_phrases(lines[2::3], numbers))
    one, other = np.concatenate(sources), np.concatenate(targets)
    del sources, targets
    hashes = np.unique(np.concatenate([one, other]))
    left, right = np.searchsorted(hashes, one), np.searchsorted(hashes, other)
    order = np.argsort(left, kind="stable")
    bucket = np.searchsorted(hashes >> np.uint64(_SHIFT), np.arange((1 << (64 - _SHIFT)) + 1, dtype=np.uint64))
    target, folder = folder, folder.with_name(f"{folder.name}.{os.getpid()}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "words.txt").write_text("\n".join(numbers), encoding="utf-8")
    np.save(folder / "hashes.npy", hashes)
    np.save(folder / "bucket.npy", bucket.astype(np.int32))
    np.save(folder / "first.npy", np.searchsorted(left[order], np.arange(len(hashes) + 1)).astype(np.int32))
    np.save(folder / "others.npy", right[order].astype(np.int32))
    try:
        folder.rename(target)  # whole or not at all, also when two processes build it
    except OSError:
        shutil.rmtree(folder)
        if not target.exists():
            raise


def _hash_phrases(phrases: list[str], numbers: _Numbers) -> Hashes:
    split = [phrase.split(" ") for phrase in phrases]
    lengths = np.fromiter(map(len, split), np.int64, len(split))
    flat = np.fromiter((numbers[word] for words in split for word in words), np.uint64, int(lengths.sum()))
    return phrase_hashes(flat, np.cumsum(lengths) - lengths, lengths)


def phrase_hashes(numbers: Hashes, start: NDArray[np.int64], lengths: NDArray[np.int64]) -> Hashes:
    """uint64 [phrases]: a hash of each phrase's words.

    Args:
        numbers: uint64, the words' numbers, phrases lying in it anywhere.
        start, lengths: int64 [phrases].
    """
    result = np.zeros(len(start), np.uint64)
    for index in range(int(lengths.max(initial=0))):
        there = np.flatnonzero(lengths > index)
        result[there] = mix(result[there], numbers[start[there] + index])
    return result


def mix(hashes: Hashes, numbers: Hashes) -> Hashes:
    """The hashes of phrases made one word longer."""
    mixed: Hashes = (hashes ^ numbers) * _FACTOR
    return mixed ^ (mixed >> np.uint64(29))
