"""Reading predictions: ``predictions.jsonl``, COCO results JSON, a JSON object, CSV or TSV, told apart by content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cutline.core.errors import ScoreError
from cutline.core.records import Prediction
from cutline.metrics.base import some
from cutline.metrics.files.tables import (
    CAPTION_KEYS,
    ID_KEYS,
    find_key,
    looks_like_json,
    parse_json,
    read_text,
    table_rows,
)


def read_predictions(path: str | Path) -> dict[str, Prediction | str | None]:
    """Image id → record (JSON lines) or caption (other formats). ``-`` is standard input.

    Raises:
        ScoreError: the file is absent, empty, of no known format, or names an image twice.
    """
    text = read_text(path)
    pairs: list[tuple[str, Prediction | str | None]]
    if looks_like_json(text):
        parsed = parse_json(text, path)
        if isinstance(parsed, dict) and not find_key(parsed, ID_KEYS):
            pairs = [(str(name), _single(value, name, path)) for name, value in parsed.items()]
        else:
            pairs = [_prediction(row, path) for row in ([parsed] if isinstance(parsed, dict) else parsed)]
    else:
        pairs = [_prediction(row, path) for row in table_rows(text, path)]
    if not pairs:
        raise ScoreError(f"{path} holds no predictions.", "Give a file with one caption an image.")
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        double = [name for name, _ in pairs if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
        raise ScoreError(f"{path} has {len(double)} ids more than once: {some(double)}.", "Keep one caption an image.")
    return found


def _prediction(row: Any, path: str | Path) -> tuple[str, Prediction | str | None]:
    if not isinstance(row, Mapping):
        raise ScoreError(f"{path}: {row!r:.60} is not a row with id and caption.", 'Rows look like {"id": …, …}.')
    id_key = find_key(row, ID_KEYS)
    caption_key = find_key(row, CAPTION_KEYS)
    if not id_key or not caption_key:
        raise ScoreError(
            f"{path}: no column for the image or the caption among {', '.join(map(str, row))}.",
            f"Name one of them {' or '.join(ID_KEYS[:3])}, the other {' or '.join(CAPTION_KEYS[:2])}.",
        )
    name = str(row[id_key])
    if "status" in row and "finished" in row:
        return name, Prediction.from_json({**row, "id": name})
    return name, _single(row[caption_key], name, path)


def _single(value: Any, name: object, path: str | Path) -> str | None:
    """One caption; a list of one is taken for it."""
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if value is None or isinstance(value, str):
        return value
    raise ScoreError(f"{path}: the caption of {name} is not one text: {value!r:.60}.", "Give one caption an image.")
