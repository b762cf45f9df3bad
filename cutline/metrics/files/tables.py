"""What files of captions have in common, for predictions and references: they are read as ``prepare`` reads them."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cutline.core.errors import DataError, RecipeError, ScoreError
from cutline.core.suggest import did_you_mean
from cutline.data.settings import Columns
from cutline.data.tables.columns import ID, IMAGE, plain
from cutline.data.tables.rows import TableFile, open_bytes, open_text, parse_json, table_kind

#: What --column can name; "prediction" is the column of captions in a file of predictions.
COLUMN_KEYS = ("image", "id", "caption", "prediction", "split", "group")

#: Names under which the list of rows of a JSON object may lie.
_WRAPPERS = {"predictions", "results", "captions", "rows", "data", "items"}


def option(key: str) -> str:
    """How the user names a column on the command line."""
    return f"--column {key}=NAME"


def chosen_columns(texts: Sequence[str]) -> dict[str, list[str]]:
    """``["caption=title", "caption=text"]`` → ``{"caption": ["title", "text"]}``.

    Raises:
        ScoreError: a text that isn't KEY=NAME, or an unknown key.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, name = text.partition("=")
        if not equals or not name:
            raise ScoreError(f"--column {text} names no column.", "Write --column caption=NAME.")
        if key not in COLUMN_KEYS:
            known = f"Known: {', '.join(COLUMN_KEYS)}."
            raise ScoreError(f"--column {text}: there is no {key!r} to name.", did_you_mean(key, COLUMN_KEYS, known))
        found.setdefault(key, []).append(name)
    twice = next((key for key, names in found.items() if key != "caption" and len(names) > 1), None)
    if twice:
        raise ScoreError(f"--column {twice} is given twice.", "Only caption can be several columns.")
    return found


def columns_for(names: Sequence[str], chosen: Mapping[str, Sequence[str]], keys: Sequence[str]) -> Columns:
    """The chosen columns that a table has, as a recipe would name them.

    A file of predictions and one of references rarely have the same columns, so that "image" and "id" count only where
    the table has them; ``keys`` are those that it must have.

    Raises:
        RecipeError: the table lacks a column that it must have.
    """
    settings: dict[str, Any] = {}
    for key in ("image", "id", "caption", "split", "group"):
        wanted = list(chosen.get(key, ()))
        if absent := [name for name in wanted if name not in names and key in keys]:
            known = f"Columns: {', '.join(names)}."
            raise RecipeError(f"--column {key}={absent[0]}: there is no such column.", known)
        if wanted and all(name in names for name in wanted):
            settings[key] = wanted if key == "caption" else wanted[0]
    return Columns(**settings)


@contextmanager
def local_file(path: str | Path) -> Iterator[Path]:
    """A file to read from; ``-`` is standard input, copied to a file for the time being.

    Raises:
        ScoreError: the file is absent or a folder, is not text, or can't be read as what it looks like.
    """
    source = Path(path)
    if str(path) != "-" and not source.exists():
        raise ScoreError(f"There is no file {path}.", "Give predictions or references that exist.")
    if str(path) != "-" and source.is_dir():
        raise ScoreError(f"{path} is a folder.", "Give the file in it (a run's predictions.jsonl).")
    try:
        if str(path) != "-":
            yield source
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "standard input"
            with open(copy, "wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
            yield copy
    except UnicodeError as error:
        raise ScoreError(f"{path} is not UTF-8 text: {error}.", "Save it as UTF-8.") from error
    except (DataError, RecipeError) as error:
        raise ScoreError(error.problem, error.remedy) from error
    except (OSError, EOFError) as error:
        raise ScoreError(f"{path} can't be read: {error}.", "Save it again.") from error


def read_any(path: Path) -> TableFile | dict[str, Any]:
    """A table, or the content of a JSON file that is one object. What the file is shows in its content.

    Raises:
        DataError, ScoreError: the file is none of these, or broken.
        UnicodeError: it isn't text.
    """
    with open_bytes(path) as file:
        if file.read(4) == b"PAR1":
            return TableFile(path, ".parquet")
    with open_text(path) as file:
        head = file.read(4096).lstrip()
        if head[:1] not in ("{", "["):
            kind = table_kind(path)
            return TableFile(path, kind if kind in (".csv", ".tsv", ".txt") else ".csv")
        file.seek(0)
        content = _json(file.read(), path)
    if isinstance(content, list):
        return _table(content, path)
    assert isinstance(content, dict)
    wrapped = next(iter(content.values())) if len(content) == 1 and content.keys() <= _WRAPPERS else None
    if isinstance(wrapped, list) and wrapped and all(is_row(row) for row in wrapped):
        return _table(wrapped, path)
    return _table([content], path) if is_row(content) else content


def is_row(value: Any) -> bool:
    """Whether a JSON object is a row with an image and captions, rather than an object of image → captions."""
    names = {plain(str(key)) for key in value} if isinstance(value, dict) else set()
    return bool(names & {*ID, *IMAGE}) and len(value) < 1000


def _table(rows: list[Any], path: Path) -> TableFile:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ScoreError(
                f"{path.name}: {row!r:.60} is not a row with id and caption (row {number}).",
                'Rows look like {"id": …, "caption": …}.',
            )
    return TableFile(path, ".json", rows)


def _json(text: str, path: Path) -> Any:
    """One JSON value, or the list of the values of JSON lines, without a torn last line."""
    try:
        return parse_json(text)
    except ValueError as whole:
        rows: list[Any] = []
        lines = text.split("\n")
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                rows.append(parse_json(line))
            except ValueError as error:
                if number == len(lines) and rows:
                    break
                if number == 1:
                    raise ScoreError(f"{path.name} is not JSON: {whole}.", "Fix the file.") from whole
                raise ScoreError(f"{path.name}, line {number} is not JSON: {error}.", "Fix that line.") from error
        return rows
