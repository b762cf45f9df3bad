"""Vector stores for ``cutline retrieve index``: time to build, time a query, recall, room on disk, package's weight.

    python benchmarks/index.py [--vectors 10000 1000000] [--engines lancedb usearch faiss numpy] [--out FOLDER]

Vectors are 256 wide, of length 1, drawn as embeddings of photographs lie: around centres, in fewer dimensions than
there are (64), with some noise in all of them. Queries are other draws around the same centres. Each engine is timed
from a fresh start of its store on disk, one query at a time; the truth is an exact scan by numpy. A filter that half of
the rows pass is timed where an engine has one. One thread; needs ``pip install lancedb usearch faiss-cpu``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LANCE_CPU_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

Floats = NDArray[np.float32]
WIDTH, DIMENSIONS, QUERIES, K = 256, 64, 200, 10

#: Search of one query → places of the K nearest.
Search = Callable[[Floats], NDArray[np.int64]]


def draw(count: int, seed: int, centres: int = 2000) -> Floats:
    world = np.random.default_rng(0)
    middle = world.standard_normal((centres, DIMENSIONS)).astype(np.float32)
    out_of = world.standard_normal((DIMENSIONS, WIDTH)).astype(np.float32) / np.sqrt(DIMENSIONS)
    chance = np.random.default_rng(seed)
    made = np.empty((count, WIDTH), np.float32)
    for start in range(0, count, 50_000):
        many = min(50_000, count - start)
        latent = middle[chance.integers(centres, size=many)]
        latent = latent + 0.7 * chance.standard_normal(latent.shape).astype(np.float32)
        block = latent @ out_of + 0.1 * chance.standard_normal((many, WIDTH)).astype(np.float32)
        made[start : start + many] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return made


class Numpy:
    """An exact scan of a file that is mapped into memory."""

    packages: tuple[str, ...] = ()

    def build(self, vectors: Floats, folder: Path) -> None:
        np.save(folder / "vectors.npy", vectors)

    def open(self, folder: Path, effort: int) -> Search:
        vectors = np.load(folder / "vectors.npy", mmap_mode="r")

        def search(query: Floats) -> NDArray[np.int64]:
            scores = vectors @ query
            best = np.argpartition(-scores, K)[:K]
            return np.asarray(best[np.argsort(-scores[best])])

        return search

    efforts: tuple[int, ...] = (0,)


class Lance:
    """LanceDB: an IVF of small graphs (IVF_HNSW_SQ); below 50,000 rows its exact scan, as its authors advise."""

    packages = ("lancedb", "lance-namespace", "lance-namespace-urllib3-client")
    efforts: tuple[int, ...] = (4, 10, 20, 40)
    kind = "IVF_HNSW_SQ"

    def build(self, vectors: Floats, folder: Path) -> None:
        import lancedb
        import pyarrow as pa

        schema = pa.schema([("place", pa.int64()), ("half", pa.bool_()), ("vector", pa.list_(pa.float32(), WIDTH))])

        def batches() -> Any:
            for start in range(0, len(vectors), 50_000):
                block = vectors[start : start + 50_000]
                places = np.arange(start, start + len(block))
                values = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), WIDTH)
                yield pa.RecordBatch.from_arrays([pa.array(places), pa.array(places % 2 == 0), values], schema=schema)

        table = lancedb.connect(folder).create_table("items", batches(), schema=schema)
        if len(vectors) >= 50_000:
            table.create_index(metric="dot", index_type=self.kind, num_partitions=max(1, len(vectors) // 8192))

    def open(self, folder: Path, effort: int) -> Search:
        import lancedb

        table = lancedb.connect(folder).open_table("items")

        def search(query: Floats) -> NDArray[np.int64]:
            found = table.search(query).distance_type("dot").limit(K).nprobes(effort).refine_factor(4)
            return np.asarray(found.select(["place", "_distance"]).to_arrow()["place"])

        return search

    def open_filtered(self, folder: Path, effort: int) -> Search:
        import lancedb

        table = lancedb.connect(folder).open_table("items")

        def search(query: Floats) -> NDArray[np.int64]:
            found = table.search(query).distance_type("dot").where("half").limit(K).nprobes(effort).refine_factor(4)
            return np.asarray(found.select(["place", "_distance"]).to_arrow()["place"])

        return search


class LanceFlat(Lance):
    """LanceDB: an IVF without compression (IVF_FLAT), which needs no graph and no refining."""

    kind = "IVF_FLAT"


class Usearch:
    """usearch: one graph (HNSW) in one file, float16."""

    packages = ("usearch", "numkong")
    efforts: tuple[int, ...] = (64, 128, 256, 512)

    def build(self, vectors: Floats, folder: Path) -> None:
        from usearch.index import Index

        index = Index(ndim=WIDTH, metric="ip", dtype="f16")
        index.add(np.arange(len(vectors)), vectors, threads=1)
        index.save(str(folder / "index.usearch"))

    def open(self, folder: Path, effort: int) -> Search:
        from usearch.index import Index

        index = Index.restore(str(folder / "index.usearch"), view=True)
        index.expansion_search = effort
        return lambda query: index.search(query, K, threads=1).keys.astype(np.int64)


class Faiss:
    """FAISS: an inverted file of whole vectors (IVF, Flat)."""

    packages = ("faiss-cpu",)
    efforts: tuple[int, ...] = (8, 32, 64, 128)

    def build(self, vectors: Floats, folder: Path) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        lists = int(np.sqrt(len(vectors)))
        index = faiss.index_factory(WIDTH, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
        index.train(vectors[:: max(1, len(vectors) // (lists * 64))])
        index.add(vectors)
        faiss.write_index(index, str(folder / "index.faiss"))

    def open(self, folder: Path, effort: int) -> Search:
        import faiss

        faiss.omp_set_num_threads(1)
        index = faiss.read_index(str(folder / "index.faiss"), faiss.IO_FLAG_MMAP)
        index.nprobe = effort
        return lambda query: np.asarray(index.search(query[None], K)[1][0])


ENGINES: dict[str, Any] = {
    "numpy": Numpy, "faiss": Faiss, "lancedb": Lance, "lancedb-flat": LanceFlat, "usearch": Usearch,
}  # fmt: skip


def measure(search: Search, queries: Floats, truth: Sequence[set[int]]) -> tuple[float, float, float]:
    """Milliseconds of wall time a query (the median), of CPU (the mean), and recall at K."""
    search(queries[0])
    walls, found, begun = [], 0, time.process_time()
    for query, right in zip(queries, truth, strict=True):
        start = time.perf_counter()
        got = search(query)
        walls.append(time.perf_counter() - start)
        found += len(right & set(got.tolist()))
    cpu = (time.process_time() - begun) / len(queries)
    return 1e3 * float(np.median(walls)), 1e3 * cpu, found / (len(queries) * K)


def weight(packages: Sequence[str]) -> float:
    """Installed MB of packages."""
    files = [file for name in packages for file in importlib.metadata.files(name) or []]
    places = {Path(str(file.locate())) for file in files}
    return sum(place.stat().st_size for place in places if place.is_file()) / 1e6


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--vectors", type=int, nargs="+", default=[10_000])
    arguments.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    arguments.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()), help="where stores are written")
    given = arguments.parse_args()
    for count in given.vectors:
        vectors, queries = draw(count, 1), draw(QUERIES, 2)
        truth = [set(np.argpartition(-(vectors @ query), K)[:K].tolist()) for query in queries]
        for name in given.engines:
            engine = ENGINES[name]()
            folder = Path(tempfile.mkdtemp(dir=given.out, prefix=f"{name}-{count}-"))
            wall, cpu = time.perf_counter(), time.process_time()
            engine.build(vectors, folder)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
            row = {"engine": name, "vectors": count, "build_cpu_s": round(cpu, 1), "build_wall_s": round(wall, 1),
                   "disk_mb": round(size, 1), "package_mb": round(weight(engine.packages), 1)}  # fmt: skip
            print(json.dumps(row), flush=True)
            for effort in engine.efforts:
                ms, cpu_ms, recall = measure(engine.open(folder, effort), queries, truth)
                row = {"engine": name, "vectors": count, "effort": effort, "query_ms": round(ms, 2),
                       "query_cpu_ms": round(cpu_ms, 2), "recall_at_10": round(recall, 4)}  # fmt: skip
                print(json.dumps(row), flush=True)
            if hasattr(engine, "open_filtered"):
                ms, cpu_ms, _ = measure(engine.open_filtered(folder, engine.efforts[-1]), queries, truth)
                row = {"engine": name, "vectors": count, "filter": "half", "query_ms": round(ms, 2),
                       "query_cpu_ms": round(cpu_ms, 2)}  # fmt: skip
                print(json.dumps(row), flush=True)
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
