"""Samples from a table: rows by column meaning, and several rows of one image merged into one sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from cutline.core.records import Sample
from cutline.data.problem import Problem
from cutline.data.settings import DataSettings
from cutline.data.tables import columns
from cutline.data.tables.columns import Meaning
from cutline.data.tables.rows import BadRow, Row, TableFile


class Finder(Protocol):
    """Turns an image's name into a path, as :class:`cutline.data.tables.image_finder.ImageFinder` does."""

    def find(self, name: str) -> str: ...


def read_table(path: Path, settings: DataSettings, finder: Finder, split: str = "") -> Iterator[Sample | Problem]:
    """The samples of a table file.

    A first pass counts the rows of each image, so that the second can let go of a sample when its last row is read:
    memory holds the images whose rows are still incomplete, not the table.

    Args:
        split: for rows that name none.

    Raises:
        DataError, RecipeError: the file is no table, or a column is missing.
    """
    table = TableFile(path)
    meaning = columns.assign(table.columns, settings.columns, path, settings.captions_required)
    columns.log_choice(table.columns, meaning, settings.columns, path)
    return samples_of(table, meaning, finder, split)


def columns_of(path: Path, settings: DataSettings) -> dict[str, list[str]]:
    """Which columns :func:`read_table` reads: "image", "captions", "split" … → columns."""
    table = TableFile(path)
    return columns.assign(table.columns, settings.columns, path, settings.captions_required).to_json()


def samples_of(table: TableFile, meaning: Meaning, finder: Finder, split: str = "") -> Iterator[Sample | Problem]:
    """The samples of a table whose columns are known; see :func:`read_table`."""
    path = table.path
    counts, meaning = _count(table, meaning)
    pending: dict[Any, list[Row]] = {}
    for row in table:
        where = f"{path.name}, row {row.number}"
        if isinstance(row, BadRow):
            yield Problem(id=where, reason="bad_row", detail=row.detail)
            continue
        name = _name(row, meaning)
        if not name:
            yield Problem(id=where, reason="bad_row", detail=f"no image under {meaning.image!r}")
            continue
        key = _key(row, name, meaning)
        rows = pending.setdefault(key, [])
        rows.append(row)
        if len(rows) == counts[hash(key)]:
            yield from _sample(pending.pop(key), name, meaning, finder, split)
    for rows in pending.values():  # only when the file grew between the passes
        yield from _sample(rows, _name(rows[0], meaning), meaning, finder, split)


def _count(table: TableFile, meaning: Meaning) -> tuple[Counter[int], Meaning]:
    """Rows of each image, by hash. A guessed id column that differs within an image names captions: it is dropped."""
    counts: Counter[int] = Counter()
    ids: dict[int, int] = {}
    guessed = meaning.id if meaning.id_is_guessed else None
    drop = False
    for row in table:
        if isinstance(row, Row) and (name := _name(row, meaning)):
            counts[hash(_key(row, name, meaning))] += 1
            if guessed is not None:
                value = hash(_text(row.cells.get(guessed)))
                drop = drop or ids.setdefault(hash(name), value) != value
    if drop:
        return counts, Meaning(
            meaning.image, meaning.captions, None, True, meaning.split, meaning.group, meaning.context, meaning.extra
        )
    return counts, meaning


def _key(row: Row, name: str, meaning: Meaning) -> Any:
    if meaning.id is not None and not meaning.id_is_guessed:
        return name, _text(row.cells.get(meaning.id))
    return name


def _sample(rows: Sequence[Row], name: str, meaning: Meaning, finder: Finder, split: str) -> Iterator[Sample | Problem]:
    first = rows[0].cells
    identity = (_text(first.get(meaning.id)) if meaning.id else "") or name
    splits = dict.fromkeys(named for row in rows if meaning.split and (named := _text(row.cells.get(meaning.split))))
    if len(splits) > 1:
        yield Problem(id=identity, reason="split_conflict", detail=f"its rows say {', '.join(splits)}")
    yield Sample(
        id=identity,
        image=finder.find(name),
        captions=tuple(
            text for row in rows for column in meaning.captions for text in columns.texts(row.cells.get(column))
        ),
        split=next(iter(splits), split),
        group=_text(first.get(meaning.group)) if meaning.group else "",
        context={column: text for column in meaning.context if (text := _text(first.get(column)))},
        extra={column: value for column in meaning.extra if (value := first.get(column)) not in (None, "")},
    )


def _name(row: Row, meaning: Meaning) -> str:
    value = row.cells.get(meaning.image)
    return _text(value) if isinstance(value, str | int) else ""


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()
