"""Tables: CSV, TSV, JSON lines, a JSON list of objects, Parquet; a row per image or a row per caption."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cutline.core.errors import DataError
from cutline.core.records import Sample
from cutline.data.problem import Problem
from cutline.data.readers.nytimes800k import holds_articles
from cutline.data.settings import DataSettings
from cutline.data.tables.image_finder import ImageFinder
from cutline.data.tables.rows import open_bytes, table_kind
from cutline.data.tables.samples import columns_of, read_table

DESCRIPTION = "a CSV, TSV, JSON-lines or Parquet file (or a JSON list) with a row per image or per caption"

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


def recognises(source: Path) -> bool:
    if source.is_dir():
        return len(_tables(source)) == 1
    kind = table_kind(source)
    if kind in (".jsonl", ".ndjson"):
        return not holds_articles(source)
    if kind in _SUFFIXES:
        return True
    if not source.is_file():
        return False
    with open_bytes(source) as file:
        head = file.read(65536)
    if kind == ".json":
        return head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    line = head.partition(b"\n")[0].lower()
    return kind == ".txt" and b"caption" in line and any(mark in line for mark in (b",", b"\t", b"|"))


def read(source: Path, settings: DataSettings) -> Iterator[Sample | Problem]:
    table = _table(source)
    folder = table.parent
    return read_table(table, settings, ImageFinder([folder, folder / "images"], settings.images))


def columns(source: Path, settings: DataSettings) -> dict[str, list[str]]:
    return columns_of(_table(source), settings)


def _table(source: Path) -> Path:
    if not source.is_dir():
        return source
    tables = _tables(source)
    if len(tables) != 1:
        raise DataError(f"{source} has {len(tables)} tables, not one.", "Name the file itself in [data] source.")
    return tables[0]


def _tables(folder: Path) -> list[Path]:
    """The tables in a folder; none where a metadata table makes it an imagefolder."""
    tables = sorted(path for path in folder.iterdir() if table_kind(path) in _SUFFIXES)
    return [] if any(path.stem == "metadata" for path in tables) else tables
