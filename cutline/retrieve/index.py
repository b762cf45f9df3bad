"""A searchable index of a dataset's images and captions.

    index.json            the model, and which of the files below are current; written last
    items-<n>.parquet     a row for each image and each caption
    vectors-<n>.npy       their unit vectors, in the same order
    image-<n>.faiss, text-<n>.faiss   approximate structures, if asked for: see cutline/retrieve/approximate.py
    embedding/            embeddings of an unfinished indexing

A search scans all vectors, so it is exact under any filter, unless the index has an approximate structure;
docs/decisions.md has measurements of both. An interrupted indexing leaves the old index as it was, and resumes.
"""

from __future__ import annotations

import json
import operator
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cutline.core.errors import DataError, RecipeError
from cutline.core.files import write_atomically
from cutline.core.fingerprint import fingerprint
from cutline.core.progress import Progress
from cutline.core.records import Sample
from cutline.core.run_folder import RunFolder
from cutline.families.common.retrieval import RetrievalFamily
from cutline.retrieve.approximate import FEW, Approximate, build, library
from cutline.retrieve.embed import embed_images, embed_texts

Floats = NDArray[np.float32]
Kind = Literal["image", "text"]
FACTS = "index.json"
FORMAT_VERSION = 1

SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("id", pa.string()),
        ("key", pa.string()),  # changes when the picture or the text does
        ("image", pa.string()),
        ("text", pa.string()),
        ("split", pa.string()),
        ("about", pa.string()),  # context and extra, a JSON object
    ]
)

#: Fields that are columns; all others are in "about".
PLAIN = ("split", "id", "text", "image")

#: Rows to scan at a time, to bound memory.
BLOCK = 65_536


class Change(NamedTuple):
    """What an update of an index changed, in rows (images and captions); and image id → error."""

    added: int
    removed: int
    kept: int
    failed: dict[str, str]


@dataclass(frozen=True)
class Index:
    """An open index: facts, items, and vectors [R, E] (or [R, Q, E], where the row of a text repeats its vector)."""

    path: Path
    facts: dict[str, Any]
    table: pa.Table
    vectors: Floats

    @classmethod
    def open(cls, path: str | Path) -> Index:
        """
        Raises:
            DataError: there is no index, it has another version, or its files are missing or damaged.
        """
        path = Path(path)
        if not (path / FACTS).is_file():
            raise DataError(f"{path} is not an index.", "Build one: cutline retrieve index MODEL DATASET -o INDEX")
        before = content = ""
        while True:
            try:
                before, content = content, (path / FACTS).read_text(encoding="utf-8")
                return cls._opened(path, json.loads(content))
            except (AttributeError, KeyError, OSError, ValueError) as error:  # pyarrow's are OSError and ValueError
                if isinstance(error, FileNotFoundError) and content != before:
                    continue  # another process has replaced the index in the meantime
                raise DataError(f"{path} is damaged: {error}", "Move it away, and index the dataset again.") from error

    @classmethod
    def _opened(cls, path: Path, facts: dict[str, Any]) -> Index:
        if facts.get("version") != FORMAT_VERSION:
            raise DataError(f"{path} is an index of version {facts.get('version')}.", "Index the dataset again.")
        table = pq.read_table(path / facts["items"])
        return cls(path, facts, table, np.load(path / facts["vectors"], mmap_mode="r"))

    @property
    def items(self) -> list[dict[str, Any]]:
        """All rows; for a few rows of a large index, ``item`` is cheaper."""
        return list(self.table.to_pylist())

    def item(self, row: int) -> dict[str, Any]:
        return dict(self.table.slice(row, 1).to_pylist()[0])

    @cached_property
    def rows_of(self) -> dict[str, NDArray[np.int64]]:
        """Kind → rows, ascending."""
        kinds = np.asarray(self.table["kind"].to_numpy(zero_copy_only=False), dtype=str)
        return {kind: np.flatnonzero(kinds == kind) for kind in ("image", "text")}

    @cached_property
    def approximations(self) -> dict[str, Approximate]:
        """Kind → approximate structure."""
        return {
            kind: Approximate.open(self.path / about["file"], self.vectors, about["probes"])
            for kind, about in self.facts.get("approximate", {}).items()
        }

    def where(self, kind: Kind, conditions: Sequence[Condition] = ()) -> NDArray[np.int64]:
        """Rows of a kind that meet all conditions, ascending.

        Raises:
            DataError: no row of that kind has the field of a condition.
        """
        rows = self.rows_of[kind]
        for condition in conditions:
            values = self._values(condition.name, rows)
            if all(value is None for value in values) and condition.name not in (fields := self._fields(kind)):
                raise DataError(
                    f"No {'caption' if kind == 'text' else 'image'} in {self.path} has {condition.name!r}.",
                    f"There are {', '.join(fields)}.",
                )
            rows = rows[[condition.met_by(value) for value in values]]
        return rows

    def _values(self, field: str, rows: NDArray[np.int64]) -> list[Any]:
        values = self.table[field if field in PLAIN else "about"].take(rows).to_pylist()
        return values if field in PLAIN else [json.loads(about).get(field) for about in values]

    def _fields(self, kind: Kind) -> list[str]:
        about = self.table["about"].take(self.rows_of[kind]).to_pylist()
        return [*PLAIN, *sorted({name for text in about for name in json.loads(text)})]

    def nearest(
        self, query: Floats, rows: NDArray[np.int64], k: int, *, exact: bool = False
    ) -> list[tuple[int, float]]:
        """The k best rows: (row, cosine), best first; of equal ones the earlier row first.

        Args:
            query: [E], or [Q, E] for an image with several vectors; two such images are compared vector by vector.
            rows: rows of one kind to search in, ascending.
            exact: scan all rows even if there is an approximate structure; few rows are always scanned.
        """
        if not len(rows):
            return []
        kind = self.table["kind"][int(rows[0])].as_py()
        if not exact and len(rows) > FEW and kind in self.approximations:
            return self.approximations[kind].nearest(query, k, rows)
        scores = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            contiguous = len(part) == part[-1] - part[0] + 1  # then a slice needs no copy
            block = self.vectors[part[0] : part[-1] + 1] if contiguous else self.vectors[part]
            if block.ndim == 2:
                scores[start : start + BLOCK] = block @ query
            elif kind == "text":
                scores[start : start + BLOCK] = (block[:, 0] @ np.atleast_2d(query).T).max(axis=1)
            elif query.ndim == 1:
                scores[start : start + BLOCK] = (block @ query).max(axis=1)
            else:
                scores[start : start + BLOCK] = np.einsum("rqe,qe->r", block, query) / len(query)
        k = min(k, len(rows))
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        best = np.flatnonzero(scores >= least)
        best = best[np.argsort(-scores[best], kind="stable")][:k]
        return [(int(rows[index]), float(scores[index])) for index in best]


class Condition:
    """``field=value``, ``!=``, ``>=``, ``<=``, ``~`` (contains) on an item's split, id, text, context or extra.

    Numbers are compared as numbers, everything else as text, so YYYY-MM-DD dates compare correctly. An item without the
    field doesn't meet the condition.
    """

    def __init__(self, text: str):
        for sign in ("!=", ">=", "<=", "~", "="):
            name, separator, value = text.partition(sign)
            if separator and name.strip():
                self.name, self.sign, self.value = name.strip(), sign, value.strip()
                return
        raise RecipeError(
            f"--filter {text} is not a valid condition.", "For example --filter split=test, --filter 'date>=2016'"
        )

    def __str__(self) -> str:
        return f"{self.name} {self.sign} {self.value}"

    def met_by(self, value: Any) -> bool:
        """Whether a field's value meets the condition; None (no value) never does."""
        if value is None:
            return False
        if self.sign == "~":
            return self.value.casefold() in str(value).casefold()
        left, right = _comparable(value, self.value)
        compare: Callable[[Any, Any], bool] = _COMPARISONS[self.sign]
        return compare(left, right)


_COMPARISONS = {"=": operator.eq, "!=": operator.ne, ">=": operator.ge, "<=": operator.le}


def _comparable(value: Any, text: str) -> tuple[Any, Any]:
    try:
        return float(value), float(text)
    except (TypeError, ValueError):
        return str(value), text


def update(
    path: str | Path,
    family: RetrievalFamily,
    made_by: str,
    checkpoint: str,
    samples: Sequence[Sample],
    *,
    prune: bool = False,
    approximate: bool | None = None,
    text_batch_size: int = 256,
    progress: Progress | None = None,
) -> Change:
    """Creates or updates an index: embeds new and changed images and captions, and keeps the rest.

    Args:
        made_by: fingerprint of the model; an index holds vectors of one model only.
        checkpoint: checkpoint that a search opens.
        samples: images with their captions; images that can't be opened are left out and reported.
        prune: remove what isn't among the samples any more.
        approximate: whether a large index gets an approximate structure; None: as before.

    Raises:
        DataError: the index was built with another model.
        CutlineError: FAISS is not installed, or another process is updating the index.
    """
    path = Path(path)
    with RunFolder(path).locked():
        return _updated(
            path,
            family,
            made_by,
            checkpoint,
            samples,
            prune=prune,
            approximate=approximate,
            text_batch_size=text_batch_size,
            progress=progress,
        )


def _updated(
    path: Path,
    family: RetrievalFamily,
    made_by: str,
    checkpoint: str,
    samples: Sequence[Sample],
    *,
    prune: bool,
    approximate: bool | None,
    text_batch_size: int,
    progress: Progress | None,
) -> Change:
    old = Index.open(path) if (path / FACTS).is_file() else None
    if old and old.facts["made_by"] != made_by:
        raise DataError(f"{path} was built with {old.facts['checkpoint']}.", "Give another -o for another model.")
    if approximate is None:
        approximate = bool(old and "approximate" in old.facts)
    if approximate:
        library()
    plan = _diff(old, samples, prune)
    work = path / "embedding" / fingerprint(made_by, [row["key"] for row in plan.images])
    new = _embed(plan, family, work, text_batch_size, progress)
    rows, vectors = plan.kept + new.rows, new.vectors
    if not rows:
        raise DataError("There is nothing to index.", "None of the images could be opened, and there are no captions.")
    if old and plan.kept:
        vectors = [old.vectors[plan.kept_rows], *vectors]
    _write(path, rows, vectors, {"made_by": made_by, "checkpoint": checkpoint}, old, approximate)
    shutil.rmtree(path / "embedding", ignore_errors=True)
    return Change(len(new.rows), plan.removed, len(plan.kept), new.failed)


class _Plan(NamedTuple):
    """The work of an update.

    Attributes:
        kept: rows that keep their vectors, with their current path, text and fields.
        kept_rows: rows of those vectors in the old index.
        images, texts: new and changed rows, to embed.
        removed: number of rows to remove from the old index, changed ones included.
    """

    kept: list[dict[str, Any]]
    kept_rows: list[int]
    images: list[dict[str, Any]]
    texts: list[dict[str, Any]]
    removed: int


def _diff(old: Index | None, samples: Sequence[Sample], prune: bool) -> _Plan:
    """Compares an index with the samples; rows that aren't among the samples stay unless ``prune``."""
    wanted = {(row["kind"], row["id"]): row for sample in samples for row in _rows(sample)}
    before = {(row["kind"], row["id"]): row for row in old.items} if old else {}
    changed = {name: row for name, row in wanted.items() if name not in before or before[name]["key"] != row["key"]}
    kept = {
        name: position for position, name in enumerate(before) if name not in changed and (name in wanted or not prune)
    }
    return _Plan(
        kept=[wanted.get(name, before[name]) for name in kept],
        kept_rows=list(kept.values()),
        images=[row for row in changed.values() if row["kind"] == "image"],
        texts=[row for row in changed.values() if row["kind"] == "text"],
        removed=len(before) - len(kept),
    )


class _Embedded(NamedTuple):
    """New rows, images before texts; their vectors, one array per kind; image id → error."""

    rows: list[dict[str, Any]]
    vectors: list[Floats]
    failed: dict[str, str]


def _embed(
    plan: _Plan, family: RetrievalFamily, work: Path, text_batch_size: int, progress: Progress | None
) -> _Embedded:
    """Embeds new and changed rows; images that can't be opened are left out.

    Args:
        work: folder for the vectors of images, from which an interrupted indexing resumes.
    """
    images, vectors, failed = plan.images, list[Floats](), dict[str, str]()
    if images:
        embedded, errors = embed_images(
            family, [Sample(id=row["id"], image=row["image"]) for row in images], work, progress
        )
        failed = {images[position]["id"]: problem for position, problem in errors.items()}
        opened = [position for position in range(len(images)) if position not in errors]
        vectors.append(embedded[opened].numpy())
        images = [images[position] for position in opened]
    if plan.texts:
        vectors.append(embed_texts(family, [row["text"] for row in plan.texts], text_batch_size).numpy())
    return _Embedded(images + plan.texts, vectors, failed)


def _rows(sample: Sample) -> list[dict[str, Any]]:
    about = json.dumps({**sample.extra, **sample.context}, ensure_ascii=False, default=str)
    # absolute, because a search may start in any folder
    shared = {"image": os.path.abspath(sample.image), "split": sample.split, "about": about}
    key = str(sample.extra.get("sha256") or sample.image)
    first = sample.captions[0] if sample.captions else ""
    image = {"kind": "image", "id": sample.id, "key": key, "text": first, **shared}
    texts = [
        {"kind": "text", "id": f"{sample.id}#{n}", "key": text, "text": text, **shared}
        for n, text in enumerate(sample.captions)
    ]
    return [image, *texts]


def _write(
    path: Path,
    rows: list[dict[str, Any]],
    parts: list[Floats],
    facts: Mapping[str, Any],
    old: Index | None,
    approximate: bool,
) -> None:
    """Writes the new files, then the facts that name them, and then deletes the old files."""
    width = max((part.shape[1] for part in parts if part.ndim == 3), default=0)
    if width:  # the one vector of a text is repeated to the number of vectors of an image
        parts = [part if part.ndim == 3 else np.repeat(part[:, None], width, axis=1) for part in parts]
    number = old.facts["number"] + 1 if old else 1
    names = {"items": f"items-{number}.parquet", "vectors": f"vectors-{number}.npy"}
    vectors = np.lib.format.open_memmap(path / names["vectors"], "w+", np.float32, (len(rows), *parts[0].shape[1:]))
    start = 0
    for part in parts:
        vectors[start : start + len(part)] = part
        start += len(part)
    vectors.flush()
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path / names["items"], compression="zstd")
    kinds = [row["kind"] for row in rows]
    if approximate:
        names_of_kinds = _approximations(path, number, np.array(kinds), vectors)
        facts = {**facts, "approximate": names_of_kinds}
    whole = {
        "version": FORMAT_VERSION,
        "number": number,
        **names,
        **facts,
        "images": kinds.count("image"),
        "texts": kinds.count("text"),
        "width": int(vectors.shape[-1]),
    }
    write_atomically(path / FACTS, json.dumps(whole, indent=2) + "\n")
    kept = {*names.values(), *(about["file"] for about in whole.get("approximate", {}).values())}
    for pattern in ("items-*.parquet", "vectors-*.npy", "*.faiss"):
        for file in path.glob(pattern):
            if file.name not in kept:
                file.unlink()


def _approximations(path: Path, number: int, kinds: NDArray[np.str_], vectors: Floats) -> dict[str, Any]:
    """Builds the approximate structure of each kind that has enough rows; kind → its file and its measured recall."""
    if vectors.ndim > 2:
        raise DataError(
            "This model gives each image several vectors, which an approximate index does not support.",
            "Leave --approximate out.",
        )
    structures = {}
    rows_of = {kind: np.flatnonzero(kinds == kind) for kind in ("image", "text")}
    for kind, rows in rows_of.items():
        if len(rows) > FEW:
            # captions are queries for images, images for both; captions are never queries for captions
            queries = {"image": rows_of["image"]} if kind == "text" else rows_of
            file = f"{kind}-{number}.faiss"
            structures[kind] = {"file": file, **build(path / file, vectors, rows, queries)._asdict()}
    return structures
