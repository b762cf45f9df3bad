"""Text files with rows about images, as people have them: JSON, JSON lines, CSV, TSV; the format from the content."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cutline.core.errors import ScoreError

#: Columns and keys that name the image, the caption and the split, in order of preference.
ID_KEYS = ("id", "image_id", "cocoid", "imgid", "filename", "file_name", "image", "image_name", "image_path", "path")
CAPTION_KEYS = ("caption", "prediction", "text", "description", "title", "raw")
SPLIT_KEYS = ("split", "subset", "fold")


def find_key(row: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    by_lower = {str(key).lower(): key for key in row if key}
    return next((by_lower[key] for key in keys if key in by_lower), None)


def read_text(path: str | Path) -> str:
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ScoreError(f"There is no file {path}.", "Give predictions or references that exist.") from error
    except IsADirectoryError as error:
        raise ScoreError(f"{path} is a folder.", "Give the file in it (a run's predictions.jsonl).") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ScoreError(f"{path} is not UTF-8 text: {error}.", "Save it as UTF-8.") from error


def looks_like_json(text: str) -> bool:
    return text.lstrip()[:1] in ("{", "[")


def parse_json(text: str, path: str | Path) -> Any:
    """One JSON value, or the list of the objects of JSON lines (a torn last line is passed over)."""
    try:
        return json.loads(text)
    except ValueError as whole:
        rows = []
        lines = text.split("\n")
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                if number == len(lines) and rows:
                    break
                if number == 1:
                    raise ScoreError(f"{path} is not JSON: {whole}.", "Mend the file.") from whole
                raise ScoreError(f"{path}, line {number} is not JSON: {error}.", "Mend that line.") from error
        return rows


def table_rows(text: str, path: str | Path) -> list[dict[str, str]]:
    first = text.split("\n", 1)[0]
    if "\t" not in first and "," not in first:
        raise ScoreError(
            f"{path} is none of the formats that can be scored.",
            "Give JSON lines, COCO or Karpathy JSON, or CSV / TSV with a header line.",
        )
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in first else ","))
