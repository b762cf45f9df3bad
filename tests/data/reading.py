"""Reading a source to its end, and writing small ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cutline.core.records import Sample
from cutline.data import readers
from cutline.data.problem import Problem
from cutline.data.settings import DataSettings
from tests.data.bad_images import encode, marker


def read(source: Path, **settings: Any) -> tuple[list[Sample], list[Problem]]:
    items = list(readers.read(DataSettings.model_validate({"source": str(source), **settings})))
    return [item for item in items if isinstance(item, Sample)], [item for item in items if isinstance(item, Problem)]


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(marker(8, 8), "PNG"))
    return path


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path
