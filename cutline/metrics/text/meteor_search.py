"""METEOR's matcher and its search for the best alignment of two captions.

Denkowski and Lavie 2014; Banerjee and Lavie 2005: matches of four kinds (same word, same stem, shared synset, listed
paraphrase) are collected; a beam search over the reference's words picks those that cover most words in the fewest
chunks. The order in which equal alternatives are preferred is METEOR 1.5's, found by asking it (docs/metrics.md).

Everything here is plain loops over arrays. With numba installed they are compiled, once (numba keeps the result on
disk); without it the same code runs as it stands, with the same result, about 40 times slower.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cutline.metrics.text.meteor_counts import WEIGHTS
from cutline.metrics.text.meteor_data import LONGEST

Ints = NDArray[np.int32]
_F = TypeVar("_F", bound=Callable[..., Any])

try:
    from numba import njit
except ImportError:
    COMPILED = False
else:
    COMPILED = True


def _compiled(function: _F) -> _F:
    if not COMPILED:
        return function
    try:
        compiled: _F = njit(cache=True)(function)
    except RuntimeError:  # numba finds no folder to write to
        compiled = njit(function)
    return compiled


#: What a match of n words adds to a path's order: whole numbers, as METEOR computes it, so single inexact words add 0.
GAIN = np.array([[int(weight * words) for words in range(LONGEST + 1)] for weight in WEIGHTS], np.int64)
_START, _OTHER, _LENGTH, _OTHER_LENGTH, _STAGE = 0, 1, 2, 3, 4  # rows of the table of matches


@_compiled
def _shared(first: Ints, items: Ints, one: int, other: int) -> bool:
    """Whether two ascending lists have an item in common."""
    a, b, last_a, last_b = first[one], first[other], first[one + 1], first[other + 1]
    while a < last_a and b < last_b:
        if items[a] == items[b]:
            return True
        if items[a] < items[b]:
            a += 1
        else:
            b += 1
    return False


@_compiled
def _word_matches(test: Ints, reference: Ints, stems: Ints, synset_first: Ints, synsets: Ints, found: Ints) -> int:
    """Writes the matches of single words, [5, …], stage by stage; gives how many there are."""
    many = 0
    for stage in range(3):
        for position in range(len(reference)):
            word = reference[position]
            if stage == 2 and synset_first[word] == synset_first[word + 1]:
                continue
            for other in range(len(test)):
                mine = test[other]
                if stage == 0:
                    hit = mine == word
                elif stage == 1:
                    hit = mine != word and stems[mine] == stems[word]
                else:
                    hit = mine != word and _shared(synset_first, synsets, mine, word)
                if hit:
                    found[0, many], found[1, many] = position, other
                    found[2, many], found[3, many], found[4, many] = 1, 1, stage
                    many += 1
    return many


@_compiled
def _phrase_matches(
    test: Ints, reference: Ints, first: Ints, others: Ints, mark: Ints, swap: bool, found: Ints, many: int
) -> int:
    """Adds the matches of phrases whose pair is listed under the reference's phrase (``swap``: under the candidate's).

    Args:
        test, reference: phrases in the captions, [3, phrases]: start, words, number; by start, then by words.
        first, others: the list of paraphrases.
        mark: a zero for each phrase; left as it was.
    """
    mine, theirs = (test, reference) if swap else (reference, test)
    after = np.empty(theirs.shape[1], np.int32)
    for k in range(theirs.shape[1] - 1, -1, -1):  # the first occurrence of each phrase, and the next of each; plus one
        after[k] = mark[theirs[2, k]]
        mark[theirs[2, k]] = k + 1
    for k in range(mine.shape[1]):
        for entry in range(first[mine[2, k]], first[mine[2, k] + 1]):
            following = mark[others[entry]]
            while following:
                other = following - 1
                following = after[other]
                at, to = (other, k) if swap else (k, other)
                found[0, many], found[1, many] = reference[0, at], test[0, to]
                found[2, many], found[3, many], found[4, many] = reference[1, at], test[1, to], 3
                many += 1
    for k in range(theirs.shape[1]):
        mark[theirs[2, k]] = 0
    return many


@_compiled
def _by_start(found: Ints, many: int, words: int) -> tuple[Ints, Ints]:
    """Matches in the order of their first reference word, else as found: where each word's begin, and the table."""
    first = np.zeros(words + 2, np.int32)
    for k in range(many):
        first[found[0, k] + 2] += 1
    for word in range(words):
        first[word + 2] += first[word + 1]
    table = np.empty((5, many), np.int32)
    for k in range(many):
        to = first[found[0, k] + 1]
        first[found[0, k] + 1] += 1
        for row in range(5):
            table[row, to] = found[row, k]
    return first, table


@_compiled
def _sure(table: Ints, test_words: int, reference_words: int) -> NDArray[np.bool_]:
    """bool [matches]: the only match of each of its words; such a match is always taken."""
    mine, theirs = np.zeros(reference_words, np.int32), np.zeros(test_words, np.int32)
    for k in range(table.shape[1]):
        for word in range(table[0, k], table[0, k] + table[2, k]):
            mine[word] += 1
        for word in range(table[1, k], table[1, k] + table[3, k]):
            theirs[word] += 1
    sure = np.ones(table.shape[1], np.bool_)
    for k in range(table.shape[1]):
        for word in range(table[0, k], table[0, k] + table[2, k]):
            sure[k] &= mine[word] == 1
        for word in range(table[1, k], table[1, k] + table[3, k]):
            sure[k] &= theirs[word] == 1
    return sure


@_compiled
def _order(weight: int, chunks: int, distance: int) -> int:
    """Paths with smaller numbers are better: more weight, then fewer chunks, then less distance."""
    return ((262143 - weight) << 45) | (chunks << 27) | distance


@_compiled
def _children(
    cur: int, first: Ints, table: Ints, sure: NDArray[np.bool_], gain: NDArray[np.int64], paths: NDArray[np.int64],
    used: NDArray[np.bool_], alive: int, children: NDArray[np.int64],
) -> int:  # fmt: skip
    """Extends each path by each match that it can take at a reference word, and by skipping it.

    Args:
        paths: [5, beam]: weight, chunks closed, distance, end of the open chunk in the candidate (-1: none), first
            reference word not covered by a phrase.
        children: [3, …], written: order, parent, match (-1: skipped, -2: within a phrase).

    A path's distance grows by that of each match that it passes over at this word, so the first match costs nothing,
    the second that of the first, and skipping that of all: METEOR's sum goes to the path that its copies are made from.
    """
    many = 0
    for path in range(alive):
        weight, chunks, distance, end, busy = (
            paths[0, path],
            paths[1, path],
            paths[2, path],
            paths[3, path],
            paths[4, path],
        )
        if busy > cur:
            children[0, many], children[1, many], children[2, many] = _order(weight, chunks, distance), path, -2
            many += 1
            continue
        taken = False
        for k in range(first[cur], first[cur + 1]):
            other = table[1, k]
            free = True
            for word in range(other, other + table[3, k]):
                if used[path, word]:
                    free = False
                    break
            if not free:
                continue
            more = gain[table[4, k], table[2, k]] + gain[table[4, k], table[3, k]]
            closed = chunks + (1 if end != -1 and end != other else 0)
            children[0, many], children[1, many], children[2, many] = _order(weight + more, closed, distance), path, k
            many += 1
            distance += abs(other - cur)
            taken = taken or sure[k]
        if not taken:
            closed = chunks + (1 if end != -1 else 0)
            children[0, many], children[1, many], children[2, many] = _order(weight, closed, distance), path, -1
            many += 1
    return many


@_compiled
def _search(
    test_words: int, reference_words: int, first: Ints, table: Ints, sure: NDArray[np.bool_], gain: NDArray[np.int64],
    beam: int,
) -> Ints:  # fmt: skip
    """The best alignment: numbers of its matches, by reference word; -1 where a word begins none."""
    most = 0
    for word in range(reference_words):
        most = max(most, first[word + 1] - first[word])
    children = np.empty((3, beam * (most + 1)), np.int64)
    paths, fresh = np.zeros((5, beam), np.int64), np.zeros((5, beam), np.int64)
    used, fresh_used = np.zeros((beam, test_words), np.bool_), np.zeros((beam, test_words), np.bool_)
    parents, matches = np.empty((reference_words, beam), np.int32), np.empty((reference_words, beam), np.int32)
    paths[3, 0], alive = -1, 1
    for cur in range(reference_words):
        many = _children(cur, first, table, sure, gain, paths, used, alive, children)
        ranks = np.argsort(children[0, :many], kind="mergesort")
        alive = min(many, beam)
        for to in range(alive):
            order, parent, k = children[0, ranks[to]], children[1, ranks[to]], children[2, ranks[to]]
            fresh[0, to], fresh[1, to], fresh[2, to] = 262143 - (order >> 45), (order >> 27) & 262143, order & 134217727
            fresh[3, to] = paths[3, parent] if k == -2 else -1 if k == -1 else table[1, k] + table[3, k]
            fresh[4, to] = paths[4, parent] if k < 0 else cur + table[2, k]
            fresh_used[to] = used[parent]
            if k >= 0:
                fresh_used[to, table[1, k] : table[1, k] + table[3, k]] = True
            parents[cur, to], matches[cur, to] = parent, k
        paths, fresh = fresh, paths
        used, fresh_used = fresh_used, used
    best, least = 0, -1
    for path in range(alive):
        value = _order(paths[0, path], paths[1, path] + (1 if paths[3, path] != -1 else 0), paths[2, path])
        if path == 0 or value < least:
            best, least = path, value
    chosen = np.full(reference_words, -1, np.int32)
    for cur in range(reference_words - 1, -1, -1):
        chosen[cur] = max(matches[cur, best], -1)
        best = parents[cur, best]
    return chosen


@_compiled
def _count(
    test: Ints, reference: Ints, chosen: Ints, table: Ints, function: NDArray[np.bool_], row: NDArray[np.int32]
) -> None:
    """Writes an alignment's statistics."""
    chunks = matched = other_matched = 0
    end = other_end = -1
    for cur in range(len(reference)):
        k = chosen[cur]
        if k < 0:
            continue
        other, words, other_words, stage = table[1, k], table[2, k], table[3, k], table[4, k]
        if end != cur or other_end != other:
            chunks += 1
        end, other_end = cur + words, other + other_words
        matched += words
        other_matched += other_words
        for word in range(other, other_end):
            row[4 + 4 * stage + (2 if function[test[word]] else 0)] += 1
        for word in range(cur, end):
            row[5 + 4 * stage + (2 if function[reference[word]] else 0)] += 1
    if chunks == 1 and matched == len(reference) and other_matched == len(test):
        chunks = 0  # a perfect caption has no break
    row[20], row[21], row[22] = chunks, other_matched, matched


@_compiled
def align(
    pairs: NDArray[np.int64], tests: tuple[Ints, Ints, Ints, Ints], references: tuple[Ints, Ints, Ints, Ints],
    stems: Ints, synset_first: Ints, synsets: Ints, function: NDArray[np.bool_], first: Ints, others: Ints,
    gain: NDArray[np.int64], beam: int, rows: NDArray[np.int32], chosen_out: Ints,
) -> None:  # fmt: skip
    """Statistics of many pairs of captions.

    Args:
        pairs: [pairs, 2], candidate and reference.
        tests, references: where each caption's words begin, the words, where its phrases begin, the phrases [3, …].
        stems, function: [words], a word's stem, and whether it is a function word.
        synset_first, synsets: each word's synsets, ascending.
        first, others: each phrase's paraphrases.
        gain: :data:`GAIN`.
        rows: [pairs, 23], zeros, written.
        chosen_out: empty, or [5, …] for the alignment of a single pair (for tests), written.
    """
    mark = np.zeros(len(first), np.int32)
    room = 0
    for pair in range(len(pairs)):
        a, b = pairs[pair, 0], pairs[pair, 1]
        words = (tests[0][a + 1] - tests[0][a]) * (references[0][b + 1] - references[0][b])
        room = max(room, 3 * words + 2 * (tests[2][a + 1] - tests[2][a]) * (references[2][b + 1] - references[2][b]))
    found = np.empty((5, room), np.int32)
    for pair in range(len(pairs)):
        a, b = pairs[pair, 0], pairs[pair, 1]
        test, reference = (
            tests[1][tests[0][a] : tests[0][a + 1]],
            references[1][references[0][b] : references[0][b + 1]],
        )
        row = rows[pair]
        row[0], row[1] = len(test), len(reference)
        for word in test:
            row[2] += function[word]
        for word in reference:
            row[3] += function[word]
        same = len(test) == len(reference)
        for position in range(len(test)):
            same = same and test[position] == reference[position]
        if same:
            many = len(test)
            for position in range(many):
                found[0, position], found[1, position] = position, position
                found[2, position], found[3, position], found[4, position] = 1, 1, 0
            table = found[:, :many].copy()
            chosen = np.arange(many).astype(np.int32)
        else:
            many = _word_matches(test, reference, stems, synset_first, synsets, found)
            mine, theirs = (
                tests[3][:, tests[2][a] : tests[2][a + 1]],
                references[3][:, references[2][b] : references[2][b + 1]],
            )
            many = _phrase_matches(mine, theirs, first, others, mark, False, found, many)
            many = _phrase_matches(mine, theirs, first, others, mark, True, found, many)
            begins, table = _by_start(found, many, len(reference))
            sure = _sure(table, len(test), len(reference))
            if sure.all():
                chosen = np.full(len(reference), -1, np.int32)
                for k in range(many):
                    chosen[table[0, k]] = k
            else:
                chosen = _search(len(test), len(reference), begins, table, sure, gain, beam)
        _count(test, reference, chosen, table, function, row)
        if chosen_out.shape[1]:
            to = 0
            for cur in range(len(chosen)):
                if chosen[cur] >= 0:
                    chosen_out[:, to] = table[:, chosen[cur]]
                    to += 1
