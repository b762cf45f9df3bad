"""Rows of a table file, whatever the file's kind: CSV, TSV, JSON lines, a JSON list, Parquet. Read row by row."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from cutline.core.errors import DataError

#: Longest cell of a CSV file, in characters: whole articles fit.
LONGEST_CELL = 1 << 30

#: What stands between the parts of a JSON object.
_OPENING = re.compile(r"[ \t\r\n]*\{")
_SEPARATOR = re.compile(r"[ \t\r\n,]*")
_COLON = re.compile(r"[ \t\r\n]*:[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its line (or number) in the file, from 1, and its cells by column."""

    number: int
    cells: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that can't be understood, and why."""

    number: int
    detail: str


class TableFile:
    """A table file. Its rows can be gone through several times.

    Raises:
        DataError: the file isn't a table of its kind, or isn't UTF-8 (or UTF-16 with its mark) text.
    """

    def __init__(self, path: Path, kind: str = "", rows: list[Any] | None = None):
        """
        Args:
            kind: the ending that tells what the file is; by default its own, without ".gz".
            rows: the rows, where they are parsed already; the kind is ".json".
        """
        self.path = path
        self._kind = kind or table_kind(path)
        kinds: dict[str, Callable[[], Iterator[Row | BadRow]]] = {
            ".csv": self._csv, ".tsv": self._csv, ".txt": self._csv, ".jsonl": self._json_lines,
            ".ndjson": self._json_lines, ".json": self._json_list, ".parquet": self._parquet,
        }  # fmt: skip
        if self._kind not in kinds:
            raise DataError(f"{path} is not a table.", f"A table ends in {', '.join(kinds)}.")
        self._rows = kinds[self._kind]
        self._list = rows
        self.columns = self._find_columns()

    def __iter__(self) -> Iterator[Row | BadRow]:
        return self._rows()

    def _find_columns(self) -> list[str]:
        """Column names; of JSON rows, all keys of the first thousand."""
        if self._kind == ".parquet":
            try:
                return list(pq.read_schema(self.path).names)
            except (pa.ArrowInvalid, OSError) as error:
                raise DataError(f"{self.path} is not a Parquet file: {error}.", "Save it again.") from error
        if self._kind in (".csv", ".tsv", ".txt"):
            with open_text(self.path) as file:
                return _header(file, self.path)[0]
        names: dict[str, None] = {}
        for row in islice(self._rows(), 1000):
            if isinstance(row, Row):
                names.update(dict.fromkeys(row.cells))
        return list(names)

    def _csv(self) -> Iterator[Row | BadRow]:
        with open_text(self.path) as file:
            names, dialect = _header(file, self.path)
            file.seek(0)
            reader = csv.reader(file, delimiter=dialect, strict=True, skipinitialspace=True)
            _next(reader, self.path)
            while True:
                start = reader.line_num + 1
                try:
                    cells = _next(reader, self.path)
                except csv.Error as error:
                    yield BadRow(start, f"{error}; are its quotes right?")
                    continue
                if cells is None:
                    return
                if len(cells) > len(names) and not any(cell.strip() for cell in cells[len(names) :]):
                    cells = cells[: len(names)]
                if len(cells) == len(names):
                    yield Row(start, dict(zip(names, cells, strict=True)))
                elif cells:
                    yield BadRow(start, f"{len(cells)} cells under {len(names)} columns")

    def _json_lines(self) -> Iterator[Row | BadRow]:
        with open_bytes(self.path) as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    value = parse_json(line.removeprefix(codecs.BOM_UTF8).decode())
                except ValueError as error:
                    yield BadRow(number, f"not JSON: {error}")
                    continue
                yield Row(number, value) if isinstance(value, dict) else BadRow(number, "not a JSON object")

    def _json_list(self) -> Iterator[Row | BadRow]:
        if self._list is None:
            self._list = _list_of(read_json(self.path), self.path)
        for number, value in enumerate(self._list, 1):
            yield Row(number, value) if isinstance(value, dict) else BadRow(number, "not a JSON object")

    def _parquet(self) -> Iterator[Row | BadRow]:
        number = 0
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=4096):
                for cells in batch.to_pylist():
                    number += 1
                    yield Row(number, cells)


def table_kind(path: Path) -> str:
    """The ending that tells what a file is, in lower case, without ".gz": ".csv" for "captions.CSV.gz"."""
    name = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return name.suffix.lower()


def open_bytes(path: Path) -> IO[bytes]:
    """Opens a file for reading; one that is compressed with gzip as its content."""
    file = open(path, "rb")  # noqa: SIM115 -- the caller closes it
    if file.read(2) != b"\x1f\x8b":
        file.seek(0)
        return file
    file.close()
    return gzip.open(path, "rb")  # type: ignore[return-value]


def open_text(path: Path) -> io.TextIOWrapper:
    """Opens a text file in UTF-8, or in UTF-16 where it begins with that encoding's mark; perhaps compressed."""
    file = open_bytes(path)
    mark = file.read(3)
    file.seek(0)
    utf16 = mark.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return io.TextIOWrapper(file, encoding="utf-16" if utf16 else "utf-8-sig", newline="")


def parse_json(text: str) -> Any:
    """A JSON value. NaN and the infinities, which JSON doesn't have, become None.

    Raises:
        ValueError: it isn't JSON, is nested too deeply, or an object has a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=lambda name: None)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice in an object")
    return found


def read_json(path: Path) -> Any:
    """
    Raises:
        DataError: the file isn't JSON.
    """
    try:
        with open_text(path) as file:
            return parse_json(file.read())
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}.", "Fetch or save the file again.") from error


def json_members(path: Path) -> Iterator[tuple[str, Any]]:
    """The members of a file that is one large JSON object, one at a time: the file needn't fit into memory.

    Raises:
        DataError: the file isn't a JSON object, or isn't UTF-8 text.
    """

    def not_an_object(detail: str) -> DataError:
        return DataError(f"{path} is not a JSON object: {detail}.", "Fetch or save the file again.")

    decoder = json.JSONDecoder()
    with open(path, encoding="utf-8-sig") as file:
        text, position, at_end = "", 0, False

        def read_more() -> None:
            nonlocal text, position, at_end
            rest = text[position:]
            try:
                # a member longer than the rest is decoded from its start again: so twice as much each time
                block = file.read(max(1 << 20, len(rest)))
            except UnicodeError as error:
                raise _not_utf8(path) from error
            text, position, at_end = rest + block, 0, not block

        def after(pattern: re.Pattern[str], start: int) -> int:
            """Where a match that begins at ``start`` ends; -1 without one."""
            match = pattern.match(text, start)
            return match.end() if match else -1

        read_more()
        position = after(_OPENING, 0)
        if position < 0:
            raise not_an_object("it doesn't begin with {")
        while True:
            position = after(_SEPARATOR, position)
            if text.startswith("}", position):
                return
            try:
                key, end = decoder.raw_decode(text, position)
                start = after(_COLON, end)
                if start < 0:
                    raise ValueError("a colon is missing")
                value, end = decoder.raw_decode(text, start)
                if end == len(text) and not at_end:
                    raise ValueError("its last value may be incomplete")
            except RecursionError as error:
                raise not_an_object(f"the value of {key!r} is nested too deeply") from error
            except ValueError as error:  # perhaps only because the rest isn't read yet
                if at_end:
                    raise not_an_object(str(error)) from error
                read_more()
                continue
            position = end
            yield str(key), value


def _list_of(value: Any, path: Path) -> list[Any]:
    if not isinstance(value, list):
        raise DataError(
            f"{path} holds no list of rows.", 'Set [data] format; "coco" and "karpathy" are JSON files too.'
        )
    return value


def _header(file: io.TextIOWrapper, path: Path) -> tuple[list[str], str]:
    """Column names and the delimiter: tab in a .tsv, otherwise a comma, or what the header has in its place."""
    try:
        line = file.readline()
    except UnicodeError as error:
        raise _not_utf8(path) from error
    if path.suffix.lower() == ".tsv":
        delimiter = "\t"
    else:
        delimiter = next((mark for mark in ",\t;|" if mark in line), ",")
    file.seek(0)
    try:
        names = _next(csv.reader(file, delimiter=delimiter, strict=True, skipinitialspace=True), path) or []
    except csv.Error as error:
        raise DataError(f"{path}: the line with the column names is broken: {error}.", "Fix its quotes.") from error
    names = [name.strip() for name in names]
    while names and not names[-1]:  # spreadsheets leave empty columns at the end
        names.pop()
    if not names:
        raise DataError(f"{path} is empty.", "Its first line must name the columns.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{path} has two columns {twice[0]!r}.", "Give each column its own name.")
    return names, delimiter


def _next(reader: Any, path: Path) -> list[str] | None:
    """The next record, None at the end. The limit on cells belongs to the whole program, so it is put back at once."""
    before = csv.field_size_limit(LONGEST_CELL)
    try:
        record: list[str] | None = next(reader, None)
        return record
    except UnicodeError as error:
        raise _not_utf8(path) from error
    finally:
        csv.field_size_limit(before)


def _not_utf8(path: Path) -> DataError:
    return DataError(f"{path} is not UTF-8 text.", "Save it with the encoding UTF-8.")
