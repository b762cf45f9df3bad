"""Small sources to prepare."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from cutline.api import prepare
from cutline.data.prepare.prepare import Report
from cutline.data.settings import DataSettings
from cutline.images import shapes


def run(source: Path, folder: Path, **settings: Any) -> Report:
    return prepare(DataSettings.model_validate({"source": str(source), **settings}), folder)


def table(folder: Path, rows: list[str], header: str = "image,caption,split") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "captions.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def pictures(folder: Path, number: int) -> list[str]:
    """So many different small pictures; their names."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for index in range(number):
        picture = shapes.picture(shapes.scenes()[index], 16, random.Random(index))
        picture.save(folder / "images" / f"{index}.png")
    return [f"{index}.png" for index in range(number)]
