"""An index of a dataset's images and captions that people keep and search.

    index.json            what it was made by, and which of the files below count; replaced last
    items-<n>.parquet     a row for each image and each caption
    vectors-<n>.npy       their unit vectors, in the same order
    image-<n>.faiss, text-<n>.faiss   with ``approximate``: see cutline/retrieve/approximate.py
    embedding/            images embedded by an indexing that isn't finished

A search is an exact scan of the vectors, so it misses nothing, whatever is filtered, unless an approximate structure
was asked for; docs/decisions.md has the measurements that speak for each. A killed indexing leaves the old index as it
was and goes on where it stopped.
"""

from __future__ import annotations

import json
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
from cutline.retrieve.approximate import FEW, Approximate, library, make
from cutline.retrieve.embed import embed_images, embed_texts

Floats = NDArray[np.float32]
Kind = Literal["image", "text"]
FACTS = "index.json"
FORMAT_VERSION = 1

SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("id", pa.string()),
        ("key", pa.string()),  # changes when what is embedded does
        ("image", pa.string()),
        ("text", pa.string()),
        ("split", pa.string()),
        ("about", pa.string()),  # context and extra, a JSON object
    ]
)

#: Fields that are columns; all others are in "about".
PLAIN = ("split", "id", "text", "image")

#: Rows scanned at a time: their scores and no copy of their vectors are in memory.
BLOCK = 65_536


class Change(NamedTuple):
    """What an indexing did, in rows (images and captions)."""

    added: int
    removed: int
    kept: int
    failed: dict[str, str]


@dataclass(frozen=True)
class Index:
    """An index that is open: facts, items and vectors [R, E] (or [R, Q, E]; a text's row then repeats its vector)."""

    path: Path
    facts: dict[str, Any]
    table: pa.Table
    vectors: Floats

    @classmethod
    def open(cls, path: str | Path) -> Index:
        """
        Raises:
            DataError: there is no index, or one of another version, or files of it are lost or cut.
        """
        path = Path(path)
        if not (path / FACTS).is_file():
            raise DataError(f"{path} is not an index.", "Build one: cutline retrieve index MODEL DATASET -o INDEX")
        before = said = ""
        while True:
            try:
                before, said = said, (path / FACTS).read_text(encoding="utf-8")
                return cls._opened(path, json.loads(said))
            except (AttributeError, KeyError, OSError, ValueError) as error:  # pyarrow's are OSError and ValueError
                if isinstance(error, FileNotFoundError) and said != before:
                    continue  # an indexing may have put other files in their place meanwhile
                raise DataError(f"{path} is damaged: {error}", "Move it away, and index the dataset again.") from error

    @classmethod
    def _opened(cls, path: Path, facts: dict[str, Any]) -> Index:
        if facts.get("version") != FORMAT_VERSION:
            raise DataError(f"{path} is an index of version {facts.get('version')}.", "Index the dataset again.")
        table = pq.read_table(path / facts["items"])
        return cls(path, facts, table, np.load(path / facts["vectors"], mmap_mode="r"))

    @property
    def items(self) -> list[dict[str, Any]]:
        """All rows; of a large index better ask ``item`` for the few that are wanted."""
        return list(self.table.to_pylist())

    def item(self, row: int) -> dict[str, Any]:
        return dict(self.table.slice(row, 1).to_pylist()[0])

    @cached_property
    def rows_of(self) -> dict[str, NDArray[np.int64]]:
        """Kind → its rows, ascending."""
        kinds = np.asarray(self.table["kind"].to_numpy(zero_copy_only=False), dtype=str)
        return {kind: np.flatnonzero(kinds == kind) for kind in ("image", "text")}

    @cached_property
    def approximations(self) -> dict[str, Approximate]:
        """By kind."""
        return {
            kind: Approximate.open(self.path / about["file"], self.vectors, about["probes"])
            for kind, about in self.facts.get("approximate", {}).items()
        }

    def where(self, kind: Kind, conditions: Sequence[Condition] = ()) -> NDArray[np.int64]:
        """The rows of a kind that meet all conditions, ascending.

        Raises:
            DataError: no row of that kind has the field that a condition is about.
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
        found = self.table[field if field in PLAIN else "about"].take(rows).to_pylist()
        return found if field in PLAIN else [json.loads(about).get(field) for about in found]

    def _fields(self, kind: Kind) -> list[str]:
        about = self.table["about"].take(self.rows_of[kind]).to_pylist()
        return [*PLAIN, *sorted({name for one in about for name in json.loads(one)})]

    def nearest(
        self, query: Floats, rows: NDArray[np.int64], k: int, *, exact: bool = False
    ) -> list[tuple[int, float]]:
        """The k best of some rows of one kind: (row, cosine), best first; of equal ones the earlier row first.

        Args:
            query: [E], or [Q, E] where images have several vectors; of two such images like is held against like.
            rows: ascending.
            exact: scan all of them, even where there is an approximate structure; few are always scanned.
        """
        if not len(rows):
            return []
        kind = self.table["kind"][int(rows[0])].as_py()
        if not exact and len(rows) > FEW and kind in self.approximations:
            return self.approximations[kind].nearest(query, k, rows)
        scores = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), BLOCK):
            some = rows[start : start + BLOCK]
            whole = len(some) == some[-1] - some[0] + 1  # then no copy has to be made
            block = self.vectors[some[0] : some[-1] + 1] if whole else self.vectors[some]
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
        found = np.flatnonzero(scores >= least)
        found = found[np.argsort(-scores[found], kind="stable")][:k]
        return [(int(rows[place]), float(scores[place])) for place in found]


class Condition:
    """``field=value``, ``!=``, ``>=``, ``<=``, ``~`` (contains) on an item's split, id, text, context or extra.

    Numbers are compared as numbers, everything else as text, so that dates as YYYY-MM-DD come in their order. An item
    that has no such field meets no condition on it.
    """

    def __init__(self, text: str):
        for sign in ("!=", ">=", "<=", "~", "="):
            name, found, value = text.partition(sign)
            if found and name.strip():
                self.name, self.sign, self.value = name.strip(), sign, value.strip()
                return
        raise RecipeError(
            f"--filter {text} is not a condition.", "For example --filter split=test, --filter 'date>=2016'"
        )

    def __str__(self) -> str:
        return f"{self.name} {self.sign} {self.value}"

    def met_by(self, value: Any) -> bool:
        """Whether a value of the field, None where an item has none, meets the condition."""
        if value is None:
            return False
        if self.sign == "~":
            return self.value.casefold() in str(value).casefold()
        one, other = _comparable(value, self.value)
        tests: dict[str, Callable[[Any, Any], bool]] = {
            "=": lambda a, b: a == b, "!=": lambda a, b: a != b,
            ">=": lambda a, b: a >= b, "<=": lambda a, b: a <= b,
        }  # fmt: skip
        return tests[self.sign](one, other)


def _comparable(one: Any, other: str) -> tuple[Any, Any]:
    try:
        return float(one), float(other)
    except (TypeError, ValueError):
        return str(one), other


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
    """Makes an index, or brings one up to date: what is new or changed is embedded, the rest kept.

    Args:
        made_by: identity of the model; an index holds vectors of one model only.
        checkpoint: its name, for searches to open it.
        samples: images with their captions; images that can't be opened are left out and named.
        prune: take out what isn't among the samples any more.
        approximate: whether large indices get an approximate structure; None: if this one has had it asked for.

    Raises:
        DataError: the index is another model's.
        CutlineError: what makes the approximate structure is not installed, or another process is at this index.
    """
    path = Path(path)
    with RunFolder(path).locked():
        return _updated(
            path, family, made_by, checkpoint, samples, prune=prune, approximate=approximate,
            text_batch_size=text_batch_size, progress=progress,
        )  # fmt: skip


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
    """What an indexing has to do.

    Attributes:
        kept: rows whose vectors stay, with their present path, text and fields.
        kept_rows: where those vectors are in the old index.
        images, texts: rows that are new or changed, to be embedded.
        removed: how many rows of the old index go, the changed ones included.
    """

    kept: list[dict[str, Any]]
    kept_rows: list[int]
    images: list[dict[str, Any]]
    texts: list[dict[str, Any]]
    removed: int


def _diff(old: Index | None, samples: Sequence[Sample], prune: bool) -> _Plan:
    """Compares an index with what it shall hold; rows that aren't among the samples stay unless they are pruned."""
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
    """New rows, images before texts; their vectors, a part for each kind; image → why it can't be opened."""

    rows: list[dict[str, Any]]
    vectors: list[Floats]
    failed: dict[str, str]


def _embed(
    plan: _Plan, family: RetrievalFamily, work: Path, text_batch_size: int, progress: Progress | None
) -> _Embedded:
    """Vectors of what is new or changed; images that can't be opened are left out.

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
    # an index is searched from anywhere
    shared = {"image": os.path.abspath(sample.image), "split": sample.split, "about": about}
    key = str(sample.extra.get("sha256") or sample.image)
    found = [
        {"kind": "image", "id": sample.id, "key": key, "text": sample.captions[0] if sample.captions else "", **shared}
    ]
    return found + [
        {"kind": "text", "id": f"{sample.id}#{n}", "key": text, "text": text, **shared}
        for n, text in enumerate(sample.captions)
    ]  # fmt: skip


def _write(
    path: Path,
    rows: list[dict[str, Any]],
    parts: list[Floats],
    facts: Mapping[str, Any],
    old: Index | None,
    approximate: bool,
) -> None:
    """New files first, then the facts that name them, then the old files go."""
    several = max((part.shape[1] for part in parts if part.ndim == 3), default=0)
    if several:  # a text's one vector stands for as many as an image has
        parts = [part if part.ndim == 3 else np.repeat(part[:, None], several, axis=1) for part in parts]
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
        "version": FORMAT_VERSION, "number": number, **names, **facts,
        "images": kinds.count("image"), "texts": kinds.count("text"), "width": int(vectors.shape[-1]),
    }  # fmt: skip
    write_atomically(path / FACTS, json.dumps(whole, indent=2) + "\n")
    kept = {*names.values(), *(about["file"] for about in whole.get("approximate", {}).values())}
    for pattern in ("items-*.parquet", "vectors-*.npy", "*.faiss"):
        for place in path.glob(pattern):
            if place.name not in kept:
                place.unlink()


def _approximations(path: Path, number: int, kinds: NDArray[np.str_], vectors: Floats) -> dict[str, Any]:
    """Kind → its structure's file and what is known of it, for each kind that has rows enough."""
    if vectors.ndim > 2:
        raise DataError(
            "This model gives an image several vectors, which an approximate index can't hold.",
            "Leave --approximate out.",
        )
    made = {}
    places = {kind: np.flatnonzero(kinds == kind) for kind in ("image", "text")}
    for kind, rows in places.items():
        if len(rows) > FEW:
            # captions ask for images, images for both; captions are never asked for by captions
            asking = {"image": places["image"]} if kind == "text" else places
            file = f"{kind}-{number}.faiss"
            made[kind] = {"file": file, **make(path / file, vectors, rows, asking)._asdict()}
    return made
