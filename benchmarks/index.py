"""Compares vector stores for ``cutline retrieve index``: build time, query time, recall, disk space, package size.

    python benchmarks/index.py [--vectors 10000 1000000] [--width 256] [--engines faiss usearch …] [--out FOLDER]
    python benchmarks/index.py --towers

Vectors have length 1 and are distributed like embeddings of photographs: around 2,000 centres, in fewer dimensions than
the vectors have (64), with some noise in all of them. With ``--uniform`` they have no such structure, which is the
hardest case. There are two kinds of queries: other draws of the same distribution (an image query), and draws from
across a gap, as contrastive models' texts are from their images (a text query). For text queries an index based on
neighbourhoods has to search further. Each engine is timed after a fresh start of its store on disk, one query at a
time; the reference is an exact scan by numpy. "cutline" is what ``cutline retrieve index --approximate`` builds; it is
also queried for every second vector, as by a filter that half of them pass. ``--towers`` measures the cost of a query
before that: its text through a text tower of CLIP-B's and of BLIP-base's size, with random weights. One thread; needs
``pip install lancedb usearch faiss-cpu``.
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
DIMENSIONS, QUERIES, K = 64, 100, 10

#: Search of one query → places of the K nearest.
Search = Callable[[Floats], NDArray[np.int64]]


def unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def draw(count: int, width: int, seed: int, *, uniform: bool, centres: int = 2000) -> Floats:
    world = np.random.default_rng(0)
    middle = world.standard_normal((centres, DIMENSIONS), np.float32)
    out_of = world.standard_normal((DIMENSIONS, width), np.float32) / np.sqrt(DIMENSIONS)
    chance = np.random.default_rng(seed)
    made = np.empty((count, width), np.float32)
    for start in range(0, count, 50_000):
        block = made[start : start + 50_000]
        block[:] = chance.standard_normal(block.shape, np.float32)
        if not uniform:
            latent = middle[chance.integers(centres, size=len(block))]
            latent = latent + 0.7 * chance.standard_normal(latent.shape, np.float32)
            block *= 0.1
            block += latent @ out_of
        block[:] = unit(block)
    return made


def beyond_a_gap(vectors: Floats) -> Floats:
    """Vectors like those of texts: noisier, and shifted in one direction; the nearest have cosines of about 0.4."""
    chance = np.random.default_rng(3)
    noise = unit(chance.standard_normal(vectors.shape, np.float32))
    away = unit(chance.standard_normal((1, vectors.shape[1]), np.float32))
    return unit(0.5 * unit(vectors + 0.5 * noise) + 0.85 * away)


class Numpy:
    """numpy: an exact scan of a memory-mapped file."""

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
    """LanceDB: an inverted file (IVF_FLAT); its exact scan below 50,000 rows, as its authors advise."""

    packages = ("lancedb", "lance-namespace", "lance-namespace-urllib3-client")
    efforts: tuple[int, ...] = (10, 20, 40, 80)

    def build(self, vectors: Floats, folder: Path) -> None:
        import lancedb
        import pyarrow as pa

        width = vectors.shape[1]
        schema = pa.schema([("place", pa.int64()), ("vector", pa.list_(pa.float32(), width))])

        def batches() -> Any:
            for start in range(0, len(vectors), 50_000):
                block = vectors[start : start + 50_000]
                places = np.arange(start, start + len(block))
                values = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), width)
                yield pa.RecordBatch.from_arrays([pa.array(places), values], schema=schema)

        table = lancedb.connect(folder).create_table("items", batches(), schema=schema)
        if len(vectors) >= 50_000:
            table.create_index(metric="dot", index_type="IVF_FLAT", num_partitions=max(1, len(vectors) // 8192))

    def open(self, folder: Path, effort: int) -> Search:
        import lancedb

        table = lancedb.connect(folder).open_table("items")

        def search(query: Floats) -> NDArray[np.int64]:
            found = table.search(query).distance_type("dot").limit(K).nprobes(effort)
            return np.asarray(found.select(["place", "_distance"]).to_arrow()["place"])

        return search


class Usearch:
    """usearch: one graph (HNSW) in one file, float16."""

    packages = ("usearch", "numkong")
    efforts: tuple[int, ...] = (64, 128, 256, 512)

    def build(self, vectors: Floats, folder: Path) -> None:
        from usearch.index import Index

        index = Index(ndim=vectors.shape[1], metric="ip", dtype="f16")
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
    efforts: tuple[int, ...] = (8, 16, 32, 64, 128)
    kind = "Flat"

    def build(self, vectors: Floats, folder: Path) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        lists = int(np.sqrt(len(vectors)))
        index = faiss.index_factory(vectors.shape[1], f"IVF{lists},{self.kind}", faiss.METRIC_INNER_PRODUCT)
        index.train(vectors[:: max(1, len(vectors) // (lists * 64))])
        index.add(vectors)
        faiss.write_index(index, str(folder / "index.faiss"))

    def open(self, folder: Path, effort: int) -> Search:
        import faiss

        faiss.omp_set_num_threads(1)
        index: Any = faiss.read_index(str(folder / "index.faiss"), faiss.IO_FLAG_MMAP)
        index.nprobe = effort
        return lambda query: np.asarray(index.search(query[None], K)[1][0])


class FaissBytes(Faiss):
    """FAISS: an inverted file with one byte per number (IVF, SQ8); numpy compares its best 4 K exactly."""

    kind = "SQ8"

    def build(self, vectors: Floats, folder: Path) -> None:
        super().build(vectors, folder)
        np.save(folder / "vectors.npy", vectors)

    def open(self, folder: Path, effort: int) -> Search:
        import faiss

        faiss.omp_set_num_threads(1)
        index: Any = faiss.read_index(str(folder / "index.faiss"), faiss.IO_FLAG_MMAP)
        index.nprobe = effort
        vectors = np.load(folder / "vectors.npy", mmap_mode="r")

        def search(query: Floats) -> NDArray[np.int64]:
            places = index.search(query[None], 4 * K)[1][0]
            return np.asarray(places[np.argsort(-(vectors[places] @ query))[:K]])

        return search


class Cutline:
    """The structure of ``cutline retrieve index --approximate``, which chooses its effort itself; 1: with a filter."""

    packages = ("faiss-cpu",)
    efforts: tuple[int, ...] = (0, 1)

    def build(self, vectors: Floats, folder: Path) -> None:
        from cutline.retrieve.approximate import build

        texts = beyond_a_gap(draw(QUERIES, vectors.shape[1], 4, uniform=False))
        whole = np.lib.format.open_memmap(
            folder / "vectors.npy", "w+", np.float32, (len(vectors) + len(texts), vectors.shape[1])
        )
        whole[: len(vectors)], whole[len(vectors) :] = vectors, texts
        rows = np.arange(len(whole))
        images, captions = rows[: len(vectors)], rows[len(vectors) :]
        tuned = build(folder / "index.faiss", whole, images, {"image": images, "text": captions})
        print(json.dumps({"engine": "cutline", **tuned._asdict()}), flush=True)
        (folder / "tuned.json").write_text(json.dumps([tuned.probes, len(images)]))

    def open(self, folder: Path, effort: int) -> Search:
        from cutline.retrieve.approximate import Approximate

        probes, count = json.loads((folder / "tuned.json").read_text())
        vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        index = Approximate.open(folder / "index.faiss", vectors, probes)
        # every row, or every second one
        rows = np.arange(0, count, 1 + effort)
        return lambda query: np.array([row for row, _ in index.nearest(query, K, rows)])


ENGINES: dict[str, Any] = {
    "cutline": Cutline,
    "numpy": Numpy, "faiss": Faiss, "faiss-bytes": FaissBytes, "lancedb": Lance, "usearch": Usearch,
}  # fmt: skip


def measure(search: Search, queries: Floats, truth: Sequence[set[int]]) -> tuple[float, float, float]:
    """Milliseconds per query of wall time (the median) and CPU (the mean), and recall at K."""
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
    arguments.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()), help="folder for the stores")
    arguments.add_argument("--width", type=int, default=256)
    arguments.add_argument("--uniform", action="store_true", help="without centres")
    arguments.add_argument("--towers", action="store_true", help="time text towers instead")
    given = arguments.parse_args()
    if given.towers:
        towers()
        return
    for count in given.vectors:
        vectors = draw(count, given.width, 1, uniform=given.uniform)
        own = draw(QUERIES, given.width, 2, uniform=given.uniform)
        asked = {"image": own, "text": beyond_a_gap(own)}
        truth = {kind: exactly(vectors, queries) for kind, queries in asked.items()}
        for name in given.engines:
            one(name, vectors, asked, truth, given.out, "uniform" if given.uniform else "clustered")


def exactly(vectors: Floats, queries: Floats) -> list[set[int]]:
    """The places of each query's K nearest."""
    parts = []
    for start in range(0, len(vectors), 50_000):
        scores = queries @ vectors[start : start + 50_000].T
        best = np.argpartition(-scores, K, axis=1)[:, :K]
        parts.append((best + start, np.take_along_axis(scores, best, 1)))
    places, scores = (np.concatenate(some, axis=1) for some in zip(*parts, strict=True))
    best = np.argsort(-scores, axis=1)[:, :K]
    return [set(row.tolist()) for row in np.take_along_axis(places, best, 1)]


def one(
    name: str, vectors: Floats, asked: dict[str, Floats], truth: dict[str, list[set[int]]], out: Path, drawn: str
) -> None:
    """Builds one engine's store and measures it."""
    engine = ENGINES[name]()
    about = {"engine": name, "vectors": len(vectors), "width": vectors.shape[1], "drawn": drawn}
    folder = Path(tempfile.mkdtemp(dir=out, prefix=f"{name}-{len(vectors)}-"))
    wall, cpu = time.perf_counter(), time.process_time()
    engine.build(vectors, folder)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    row = {**about, "build_cpu_s": round(cpu, 1), "build_wall_s": round(wall, 1),
           "disk_mb": round(size, 1), "package_mb": round(weight(engine.packages), 1)}  # fmt: skip
    print(json.dumps(row), flush=True)
    for kind, queries in asked.items():
        for effort in engine.efforts:
            right = truth[kind]
            filtered = name == "cutline" and effort > 0
            if filtered:
                right = [{2 * place for place in some} for some in exactly(vectors[::2], queries)]
            ms, cpu_ms, recall = measure(engine.open(folder, effort), queries, right)
            row = {**about, "query": kind, "effort": "half filtered" if filtered else effort, "query_ms": round(ms, 2),
                   "query_cpu_ms": round(cpu_ms, 2), "recall_at_10": round(recall, 4)}  # fmt: skip
            print(json.dumps(row), flush=True)
    shutil.rmtree(folder)


def towers(tokens: int = 14, times: int = 50) -> None:
    """Prints the CPU time of a text with this number of tokens in text towers of two sizes."""
    import torch
    from transformers import BlipTextConfig, CLIPTextConfig, CLIPTextModelWithProjection
    from transformers.models.blip.modeling_blip_text import BlipTextModel

    torch.set_num_threads(1)
    made = {
        "CLIP-B": CLIPTextModelWithProjection(CLIPTextConfig()).eval(),
        "BLIP-base": BlipTextModel(BlipTextConfig(), add_pooling_layer=False).eval(),
    }
    ids = torch.randint(1000, 2000, (1, tokens))
    mask = torch.ones_like(ids)
    for name, tower in made.items():
        with torch.inference_mode():
            for _ in range(3):
                tower(input_ids=ids, attention_mask=mask)
            begun = time.process_time()
            for _ in range(times):
                tower(input_ids=ids, attention_mask=mask)
        cpu = (time.process_time() - begun) / times
        weights = sum(part.numel() for part in tower.parameters())
        row = {"text_tower": name, "parameters": weights, "tokens": tokens, "query_cpu_ms": round(1e3 * cpu, 1)}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
