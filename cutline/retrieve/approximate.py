"""Approximate nearest-neighbour search over an index: a FAISS inverted file with one byte per value (IVF, SQ8).

Each vector is in the list of the nearest of √R centres, and a query probes the lists of its nearest centres only (Sivic
& Zisserman 2003; Jégou et al. 2011, "Product quantization for nearest neighbor search", section IV). The best of these,
compared by bytes, are then compared exactly, so only vectors in other lists are missed. The number of lists to probe is
measured when the structure is built: captions and images of the index serve as queries that are also answered exactly.
For both kinds of queries, the lower end of the one-sided 95 % interval of the recall must reach ``RECALL``.
docs/decisions.md has further measurements.
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

#: Recall at ``NEAREST`` to reach, for each kind of query.
RECALL = 0.99
NEAREST = 10

#: Queries of each kind to measure the recall with; fewer give a wide interval, and so a slow search.
QUERIES = 200

#: Factor from one number of lists that is tried to the next.
STEP = 1.5

#: Standard errors to the lower end of a one-sided 95 % interval.
_SURE = 1.645

#: Training vectors per centre.
SAMPLED = 64

#: Candidates to compare exactly, per result.
REFINED = 4

#: Up to this many rows an exact scan is as fast: no structure is built, and filtered rows are scanned.
FEW = 20_000


class Tuned(NamedTuple):
    """Number of lists, number of lists to probe, and the recall: the lower one of both kinds of queries.

    ``least`` is the lower end of the recall's one-sided 95 % interval.
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


def build(path: Path, vectors: Floats, rows: Rows, queries: Mapping[str, Rows]) -> Tuned:
    """Builds the structure over some rows of the vectors [R, E], writes it to a file, and tunes it.

    Args:
        queries: kind → rows to draw queries from, at most ``QUERIES`` of each kind.
    """
    faiss = library()
    lists = int(np.sqrt(len(rows)))
    structure = faiss.index_factory(vectors.shape[1], f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    generator = np.random.default_rng(0)
    structure.train(vectors[np.sort(generator.choice(rows, min(len(rows), lists * SAMPLED), replace=False))])
    for start in range(0, len(rows), 50_000):
        part = rows[start : start + 50_000]
        structure.add_with_ids(np.ascontiguousarray(vectors[part]), part)
    faiss.write_index(structure, str(path))
    samples = [generator.choice(of, min(len(of), QUERIES), replace=False) for of in queries.values() if len(of)]
    exact = [_exact_neighbours(vectors, rows, sample) for sample in samples]
    probes, recall, least = 4, 0.0, 0.0
    while least < RECALL and probes < lists:
        probes = min(int(np.ceil(STEP * probes)), lists)
        opened = Approximate(structure, vectors, probes, len(rows))
        recalls = [_recalls(opened, sample, nearest) for sample, nearest in zip(samples, exact, strict=True)]
        recall = min(float(shares.mean()) for shares in recalls)
        least = min(_lower_bound(shares) for shares in recalls)
    return Tuned(lists, probes, recall, least)


def _exact_neighbours(vectors: Floats, rows: Rows, query_rows: Rows) -> list[set[int]]:
    """The nearest rows of each query row, itself excluded."""
    queries = vectors[query_rows]
    nearest, scores = np.empty((len(query_rows), 0), np.int64), np.empty((len(query_rows), 0), np.float32)
    for start in range(0, len(rows), 50_000):
        part = rows[start : start + 50_000]
        cosines = queries @ vectors[part].T
        cosines[query_rows[:, None] == part] = -np.inf
        nearest = np.concatenate([nearest, np.broadcast_to(part, cosines.shape)], axis=1)
        scores = np.concatenate([scores, cosines], axis=1)
        best = np.argpartition(-scores, min(NEAREST, scores.shape[1]) - 1, axis=1)[:, :NEAREST]
        nearest, scores = np.take_along_axis(nearest, best, 1), np.take_along_axis(scores, best, 1)
    return [set(row.tolist()) for row in nearest]


def _recalls(approximate: Approximate, query_rows: Rows, exact: list[set[int]]) -> Floats:
    """Recall of each query [Q]."""
    shares = []
    for row, expected in zip(query_rows.tolist(), exact, strict=True):
        results = approximate.nearest(approximate.vectors[row], NEAREST + 1)
        shares.append(len(expected & {result for result, _ in results if result != row}) / len(expected))
    return np.array(shares, np.float32)


def _lower_bound(shares: Floats) -> float:
    """The lower end of the mean's one-sided 95 % interval, by the normal approximation.

    If the recall is 1 everywhere the standard error would be 0; then that of a single miss is used.
    """
    one_miss = 1 / (NEAREST * len(shares))
    error = max(float(shares.std() / np.sqrt(len(shares))), one_miss)
    return float(shares.mean()) - _SURE * error


class Approximate:
    """An open structure.

    Args:
        structure: the FAISS index.
        vectors: vectors of the whole index [R, E], for the exact comparison.
        probes: number of lists that a query without a filter probes.
        count: number of rows in the structure.
    """

    def __init__(self, structure: Any, vectors: Floats, probes: int, count: int):
        self.structure, self.vectors, self.probes, self.count = structure, vectors, probes, count

    @classmethod
    def open(cls, path: Path, vectors: Floats, probes: int) -> Approximate:
        faiss = library()
        structure = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
        return cls(structure, vectors, probes, structure.ntotal)

    def nearest(self, query: Floats, k: int, rows: Rows | None = None) -> list[tuple[int, float]]:
        """The k best rows: (row, cosine), best first.

        Args:
            query: [E].
            rows: search in these rows only; the fewer they are, the more lists are probed.
        """
        faiss = library()
        probes = self.probes
        selector = None
        if rows is not None and len(rows) < self.count:
            probes = min(self.structure.nlist, int(np.ceil(probes * self.count / max(1, len(rows)))))
            allowed = np.zeros(len(self.vectors), bool)
            allowed[rows] = True
            bits = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(bits)
        parameters = faiss.SearchParametersIVF(sel=selector, nprobe=probes)
        candidates = self.structure.search(np.ascontiguousarray(query)[None], REFINED * k, params=parameters)[1][0]
        candidates = np.sort(candidates[candidates >= 0])
        scores = self.vectors[candidates] @ query
        best = np.argsort(-scores, kind="stable")[:k]
        return [(int(candidates[index]), float(scores[index])) for index in best]
