"""The prepared dataset: a folder that Cutline reads fast and ``datasets.load_dataset("imagefolder")`` reads too.

dataset/
  metadata.parquet     one row a sample: file_name, id, captions, split, group, context, extra,
                       sha256, width, height, source
  images/00 … ff/      the image files, byte for byte as they came, each named by its SHA-256 (or in tars, see ``tars``)
  problems.jsonl       what was lost or fixed on the way, one line each
  dataset.json         counts and fingerprints; written last, so a folder that has it is whole

Hash names make an image that comes twice one file, and can't be mistaken for a split by imagefolder, which takes a name
with "test" in it for one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cutline.core.errors import DataError
from cutline.core.files import replaced
from cutline.core.records import Sample
from cutline.images.open import ImageFacts

TABLE = "metadata.parquet"
MARKER = "dataset.json"
PROBLEMS = "problems.jsonl"

#: Raised when a folder written before can't be read any more.
FORMAT_VERSION = 1

#: Context and extra are JSON objects in a string: their keys differ from sample to sample.
SCHEMA = pa.schema(
    [
        ("file_name", pa.string()),
        ("id", pa.string()),
        ("captions", pa.list_(pa.string())),
        ("split", pa.string()),
        ("group", pa.string()),
        ("context", pa.string()),
        ("extra", pa.string()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("source", pa.string()),
    ]
)

#: What the table knows of the image itself; a sample carries it in ``extra``.
IMAGE_COLUMNS = ("sha256", "width", "height", "source")


#: What a training needs a split for.
_PURPOSE = {"train": "to train on", "val": "to choose the best checkpoint by"}


class Dataset:
    """A prepared dataset, or one split of it. Opening reads no row; the table is read when a sample is asked for.

    Example:
        train = Dataset.open("runs/food/dataset").split("train")
        for sample in train: ...
    """

    def __init__(self, path: Path, rows: NDArray[np.int64] | None = None):
        """Use ``Dataset.open``. ``rows`` are the row numbers of the table that belong to this view; None: all."""
        self.path = path
        self._rows = rows

    @classmethod
    def open(cls, path: str | Path) -> Dataset:
        """Opens a prepared dataset.

        Raises:
            DataError: the folder is absent, isn't a prepared dataset, or wasn't finished.
        """
        path = Path(path)
        if not path.is_dir():
            raise DataError(f"There is no dataset {path}.", "Make one with cutline prepare, or fix the path.")
        if not (path / MARKER).is_file():
            begun = (path / TABLE).exists() or (path / "images").is_dir()
            raise DataError(
                f"{path} is not a finished dataset: it has no {MARKER}.",
                "Run cutline prepare again; it resumes." if begun else "Make one with cutline prepare.",
            )
        if not (path / TABLE).is_file():
            raise DataError(f"{path} has lost its {TABLE}.", f"Delete {path / MARKER} and run cutline prepare again.")
        dataset = cls(path)
        version = dataset.marker.get("format_version")
        if version != FORMAT_VERSION:
            raise DataError(
                f"{path} has format {version}; this Cutline reads format {FORMAT_VERSION}.",
                "Run cutline prepare again into another folder.",
            )
        return dataset

    @cached_property
    def marker(self) -> dict[str, Any]:
        """What ``dataset.json`` says: counts by split, problems by reason, fingerprints.

        Raises:
            DataError: the file is damaged.
        """
        try:
            marker = json.loads((self.path / MARKER).read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{self.path / MARKER} is damaged.", "Delete it and run cutline prepare again.") from error
        return marker if isinstance(marker, dict) else {}

    def split(self, name: str) -> Dataset:
        """The samples of one split, in the table's order.

        Raises:
            DataError: there is no such split; the message names those that there are.
        """
        column = self._column("split")
        rows = np.flatnonzero(pc.equal(column, name).to_numpy(zero_copy_only=False)).astype(np.int64)
        if len(rows) == 0:
            counts = ", ".join(f"{split} ({count})" for split, count in self.splits().items()) or "none"
            raise DataError(f"{self.path} has no split {name!r}.", f"It has: {counts}.")
        return Dataset(self.path, rows if self._rows is None else self._rows[rows])

    def splits(self) -> dict[str, int]:
        """Number of samples of each split; train, val and test come first."""
        counted = {
            str(item["values"]): int(item["counts"]) for item in pc.value_counts(self._column("split")).to_pylist()
        }
        first = [name for name in ("train", "val", "test") if name in counted]
        return {name: counted[name] for name in (*first, *sorted(counted.keys() - set(first)))}

    def default_split(self, *preferred: str) -> str:
        """The split to work on where none is named: the first of the preferred ones that exists, else any.

        Args:
            preferred: names of splits; "test", then "val" by default.

        Raises:
            DataError: the dataset holds no samples.
        """
        present = self.splits()
        if not present:
            raise DataError(f"{self.path} has no images.", "Prepare it from a source with captioned images.")
        return next((name for name in preferred or ("test", "val") if name in present), next(iter(present)))

    def column(self, name: str) -> list[Any]:
        """One column of the table, a value a sample, without reading the others ("id", "captions", "width", …)."""
        values: list[Any] = self._column(name).to_pylist()
        return values

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change when anything in the table changes (an image's bytes included) or the view does."""
        digest = hashlib.sha256()
        with open(self.path / TABLE, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        if self._rows is not None:
            digest.update(self._rows.tobytes())
        return digest.hexdigest()[:16]

    def __len__(self) -> int:
        return self._rows_in_table if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        index = index % len(self)
        row = index if self._rows is None else int(self._rows[index])
        return self._sample(self._table.slice(row, 1).to_pylist()[0])

    def __iter__(self) -> Iterator[Sample]:
        for start in range(0, len(self), 1024):
            if self._rows is None:
                part = self._table.slice(start, 1024)
            else:
                part = self._table.take(pa.array(self._rows[start : start + 1024]))
            for row in part.to_pylist():
                yield self._sample(row)

    def __repr__(self) -> str:
        return f"Dataset({str(self.path)!r}, {len(self)} samples)"

    def __getstate__(self) -> dict[str, Any]:
        # a worker process reads the table for itself rather than receiving it through a pipe
        return {"path": self.path, "_rows": self._rows}

    def _sample(self, row: Mapping[str, Any]) -> Sample:
        return Sample(
            id=row["id"],
            image=str(self._folder / row["file_name"]),
            captions=tuple(row["captions"]),
            split=row["split"],
            group=row["group"],
            context=json.loads(row["context"]),
            extra=json.loads(row["extra"]) | {name: row[name] for name in IMAGE_COLUMNS},
        )

    @cached_property
    def _folder(self) -> Path:
        return self.path.absolute()

    @cached_property
    def _rows_in_table(self) -> int:
        return int(pq.read_metadata(self.path / TABLE).num_rows)

    @cached_property
    def _table(self) -> pa.Table:
        return pq.read_table(self.path / TABLE, schema=SCHEMA)

    def _column(self, name: str) -> pa.ChunkedArray:
        if name not in SCHEMA.names:
            raise DataError(f"A dataset has no column {name!r}.", f"It has: {', '.join(SCHEMA.names)}.")
        whole = self.__dict__.get("_table")
        table = pq.read_table(self.path / TABLE, columns=[name]) if whole is None else whole
        values = table.column(name)
        return values if self._rows is None else values.take(pa.array(self._rows))


def captioned_split(dataset: Dataset, name: str) -> Dataset:
    """A split that training needs: "train" or "val".

    Raises:
        DataError: there is no such split, or none of its images has a caption.
    """
    if name not in dataset.splits():
        raise DataError(
            f"{dataset.path} has no split {name!r} {_PURPOSE[name]}; it has {', '.join(dataset.splits()) or 'none'}.",
            f"Add {name} to the source's split column, or leave the splits to [data] val and test.",
        )
    found = dataset.split(name)
    if not any(found.column("captions")):
        raise DataError(f"No image of the split {name} has a caption {_PURPOSE[name]}.", "Give it captions.")
    return found


def image_name(facts: ImageFacts) -> str:
    """Where an image lies in the dataset, relative to its folder: ``images/3f/3f2a….jpg``."""
    return f"images/{facts.sha256[:2]}/{facts.sha256}{facts.suffix}"


def store_image(folder: Path, facts: ImageFacts, data: bytes) -> None:
    """Puts an image's bytes into the dataset; a reader sees the whole file or none. One that is there is kept."""
    target = folder / image_name(facts)
    try:
        if target.stat().st_size == len(data):
            return
    except FileNotFoundError:
        target.parent.mkdir(parents=True, exist_ok=True)
    with replaced(target, durable=False) as temporary:  # two threads may store the same picture at once
        temporary.write_bytes(data)


def write_table(folder: Path, rows: Iterable[Mapping[str, Any]], rows_in_memory: int = 8192) -> int:
    """Writes ``metadata.parquet`` so that a reader sees the old one or the new one; returns the number of rows."""
    total = 0
    batch: list[Mapping[str, Any]] = []
    with replaced(folder / TABLE) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
        for row in rows:
            batch.append(row)
            if len(batch) == rows_in_memory:
                writer.write_table(pa.Table.from_pylist(batch, SCHEMA))
                total += len(batch)
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, SCHEMA))
        total += len(batch)
    return total
