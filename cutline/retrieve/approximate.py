"""An approximate structure over an index's vectors: FAISS, an inverted file with a byte a number (IVF, SQ8).

Vectors are put into lists by the nearest of √R centres, and a query looks into the lists of its nearest centres only
(Sivic & Zisserman 2003; Jégou et al. 2011, "Product quantization for nearest neighbor search", section IV). The best
of those, compared by bytes, are then compared exactly, so that only what the lists hid is missed. How many lists are
looked into is measured when the structure is made: queries that the index holds itself, captions and images, are
answered exactly, too, and of both the recall must reach ``RECALL`` by more than the chance of which queries were drawn:
the lower end of its one-sided 95 % interval must. docs/decisions.md says what else was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cutline.core.errors import CutlineError

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

#: Share of the ten nearest that must be found, for each kind of query.
RECALL = 0.99
NEAREST = 10

#: Queries of each kind that the recall is measured with; fewer leave the interval wide, and the search slow.
QUERIES = 200

#: From one number of lists that is tried to the next.
STEP = 1.5

#: Standard errors to the lower end of a one-sided 95 % interval.
_SURE = 1.645

#: Vectors a list that its centres are found from.
SAMPLED = 64

#: Candidates that are compared exactly, for each one wanted.
REFINED = 4

#: Rows that a scan is as fast for: of fewer none is made, and fewer that meet a filter are scanned.
FEW = 20_000


class Tuned(NamedTuple):
    """How many lists a query looks into, and the recall that this gave, the worse of both kinds of queries.

    ``least`` is what the recall of other queries is at least, but for a chance of 5 %.
    """

    lists: int
    probes: int
    recall: float
    least: float


def library() -> Any:
    """
    Raises:
        CutlineError: FAISS is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise CutlineError(
            "An approximate index needs FAISS.", 'pip install "cutline[faiss]", or search with --exact.'
        ) from None
    return faiss


def make(path: Path, vectors: Floats, rows: Rows, queries: Mapping[str, Rows]) -> Tuned:
    """Builds the structure over some rows of the vectors [R, E], writes it, and measures it.

    Args:
        queries: kind → rows to ask with; of each at most ``QUERIES`` are.
    """
    faiss = library()
    lists = int(np.sqrt(len(rows)))
    made = faiss.index_factory(vectors.shape[1], f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    chance = np.random.default_rng(0)
    made.train(vectors[np.sort(chance.choice(rows, min(len(rows), lists * SAMPLED), replace=False))])
    for start in range(0, len(rows), 50_000):
        some = rows[start : start + 50_000]
        made.add_with_ids(np.ascontiguousarray(vectors[some]), some)
    faiss.write_index(made, str(path))
    asking = [chance.choice(some, min(len(some), QUERIES), replace=False) for some in queries.values() if len(some)]
    exact = [_exactly(vectors, rows, some) for some in asking]
    probes, recall, least = 4, 0.0, 0.0
    while least < RECALL and probes < lists:
        probes = min(int(np.ceil(STEP * probes)), lists)
        opened = Approximate(made, vectors, probes, len(rows))
        found = [_found(opened, some, right) for some, right in zip(asking, exact, strict=True)]
        recall = min(float(shares.mean()) for shares in found)
        least = min(_least(shares) for shares in found)
    return Tuned(lists, probes, recall, least)


def _exactly(vectors: Floats, rows: Rows, asking: Rows) -> list[set[int]]:
    """The nearest of each asking row, itself not among them."""
    queries = vectors[asking]
    places, scores = np.empty((len(asking), 0), np.int64), np.empty((len(asking), 0), np.float32)
    for start in range(0, len(rows), 50_000):
        some = rows[start : start + 50_000]
        found = queries @ vectors[some].T
        found[asking[:, None] == some] = -np.inf
        places = np.concatenate([places, np.broadcast_to(some, found.shape)], axis=1)
        scores = np.concatenate([scores, found], axis=1)
        best = np.argpartition(-scores, min(NEAREST, scores.shape[1]) - 1, axis=1)[:, :NEAREST]
        places, scores = np.take_along_axis(places, best, 1), np.take_along_axis(scores, best, 1)
    return [set(row.tolist()) for row in places]


def _found(approximate: Approximate, asking: Rows, right: list[set[int]]) -> Floats:
    """[Q] which share of each query's nearest is found."""
    shares = []
    for row, wanted in zip(asking.tolist(), right, strict=True):
        got = approximate.nearest(approximate.vectors[row], NEAREST + 1)
        shares.append(len(wanted & {place for place, _ in got if place != row}) / len(wanted))
    return np.array(shares, np.float32)


def _least(shares: Floats) -> float:
    """The lower end of the mean's one-sided 95 % interval, by the normal approximation.

    Where all is found the spread is 0 and says nothing; then that of one miss among so many is taken.
    """
    one_miss = 1 / (NEAREST * len(shares))
    error = max(float(shares.std() / np.sqrt(len(shares))), one_miss)
    return float(shares.mean()) - _SURE * error


class Approximate:
    """The structure, open.

    Args:
        made: of FAISS.
        vectors: of the whole index [R, E], for the exact comparison.
        probes: lists that a query without a filter looks into.
        count: rows in the structure.
    """

    def __init__(self, made: Any, vectors: Floats, probes: int, count: int):
        self.made, self.vectors, self.probes, self.count = made, vectors, probes, count

    @classmethod
    def open(cls, path: Path, vectors: Floats, probes: int) -> Approximate:
        faiss = library()
        made = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
        return cls(made, vectors, probes, made.ntotal)

    def nearest(self, query: Floats, k: int, rows: Rows | None = None) -> list[tuple[int, float]]:
        """The k best, (row, cosine), best first.

        Args:
            query: [E].
            rows: only these may be found; the fewer, the more lists are looked into.
        """
        faiss = library()
        probes = self.probes
        selector = None
        if rows is not None and len(rows) < self.count:
            probes = min(self.made.nlist, int(np.ceil(probes * self.count / max(1, len(rows)))))
            allowed = np.zeros(len(self.vectors), bool)
            allowed[rows] = True
            bits = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(bits)
        parameters = faiss.SearchParametersIVF(sel=selector, nprobe=probes)
        places = self.made.search(np.ascontiguousarray(query)[None], REFINED * k, params=parameters)[1][0]
        places = np.sort(places[places >= 0])
        scores = self.vectors[places] @ query
        best = np.argsort(-scores, kind="stable")[:k]
        return [(int(places[place]), float(scores[place])) for place in best]
