"""Reading predictions: ``predictions.jsonl``, COCO results JSON, a JSON object, or any table that ``prepare`` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cutline.core.errors import RecipeError, ScoreError
from cutline.core.records import Prediction
from cutline.data.tables.columns import ID, IMAGE, guess, prediction_column, texts
from cutline.data.tables.rows import BadRow, TableFile
from cutline.metrics.base import some
from cutline.metrics.files.tables import columns_for, local_file, option, read_any

Read = Prediction | str | list[str] | None

#: Names of the column that tells the image, best first: "id" numbers the captions where there is one of the image, too.
_NAMES = ("imageid", "cocoid", "imgid", *IMAGE, *ID)


def read_predictions(path: str | Path, columns: Mapping[str, Sequence[str]] | None = None) -> dict[str, Read]:
    """Image id → record (JSON lines) or caption (other formats). ``-`` is standard input.

    Args:
        columns: key → names of columns, as :func:`cutline.metrics.files.tables.chosen_columns` gives them.

    Returns:
        The predictions in the file's order. Several captions of one image are a list; null is None.

    Raises:
        ScoreError: the file is absent, empty, of no known format, has a broken row, or names an image twice.
    """
    with local_file(path) as file:
        content = read_any(file)
        if isinstance(content, TableFile):
            pairs = list(_rows(content, path, columns or {}))
        else:
            pairs = [(str(name), _captions(value, name, path)) for name, value in content.items()]
    if not pairs:
        raise ScoreError(f"{path} holds no predictions.", "Give a file with one caption per image.")
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        double = [name for name, _ in pairs if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
        raise ScoreError(f"{path} has {len(double)} ids more than once: {some(double)}.", "Keep one caption per image.")
    return found


def _rows(table: TableFile, path: str | Path, chosen: Mapping[str, Sequence[str]]) -> list[tuple[str, Read]]:
    if not table.columns:
        return []
    named = columns_for(table.columns, chosen, ())
    wanted = next(iter(chosen.get("prediction", ())), None)
    if wanted is not None and wanted not in table.columns:
        raise RecipeError(
            f"--column prediction={wanted}: {path} has no such column.", f"Columns: {', '.join(table.columns)}."
        )
    records = {"id", "status", "finished", "caption"} <= set(table.columns)
    name_column = named.id or named.image or ("id" if records else guess(table.columns, _NAMES))
    if name_column is None:
        raise RecipeError(
            f"{path}: no column is known to name the image. Columns: {', '.join(table.columns)}.",
            f"Name it: {option('id')}",
        )
    records = records and wanted is None
    column = "caption" if records else wanted or prediction_column(table.columns, Path(path), option)
    pairs: list[tuple[str, Read]] = []
    for row in table:
        if isinstance(row, BadRow):
            raise ScoreError(f"{path}, row {row.number}: {row.detail}.", "Fix the row.")
        value = row.cells.get(name_column)
        if not isinstance(value, str | int | float) or not str(value).strip():
            raise ScoreError(f"{path}, row {row.number}: no image under {name_column!r}.", "Fix the row.")
        name = str(value).strip()
        if column not in row.cells:
            raise ScoreError(f"{path}, row {row.number}: there is no {column!r}.", "Fix the row.")
        if records and "status" in row.cells and "finished" in row.cells:
            pairs.append((name, Prediction.from_json({**row.cells, "id": name})))
        else:
            pairs.append((name, _captions(row.cells[column], name, path)))
    return pairs


def _captions(value: Any, name: object, path: str | Path) -> Read:
    """A cell's captions: one text, a list of several, or None. A list of one is that one."""
    if value is None or value == "":
        return None if value is None else ""
    items = value if isinstance(value, list | tuple) else [value]
    if items in (["NaN"], ["nan"]):  # as pandas writes a caption that is missing
        return None
    missing = all(item is None or item != item for item in items)  # NaN is no caption
    if not missing and not all(isinstance(item, str | dict | None) for item in items):
        raise ScoreError(f"{path}: the caption of {name} is not text: {value!r:.60}.", "Give captions as texts.")
    found = texts(value)
    if not found and any(isinstance(item, dict) for item in items):
        raise ScoreError(f"{path}: there is no caption in {value!r:.60} of {name}.", 'Name it "caption".')
    return found if len(found) > 1 else found[0] if found else None
