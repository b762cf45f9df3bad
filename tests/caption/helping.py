"""What a file of predictions says, and a family that does as it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from cutline.core import jsonl
from cutline.core.records import Prediction, Sample
from cutline.families.base import Family


def rows(path: Path) -> dict[str, Prediction]:
    """What a file of predictions says; an image has one row."""
    lines = [Prediction.from_json(row) for row in jsonl.read(path)]
    found = {row.id: row for row in lines}
    assert len(found) == len(lines)
    return found


class Fake:
    """A family whose ``generate`` does as it is told; everything else is the real one's."""

    def __init__(self, family: Family, generate: Any) -> None:
        self.family, self._generate = family, generate

    def __getattr__(self, name):
        return getattr(self.family, name)

    def generate(self, batch, settings):
        return self._generate(batch, settings)


def fake(family: Family, generate) -> Family:
    return cast(Family, Fake(family, generate))


def some(photos: Path, count: int) -> list[Sample]:
    paths = [path for path in sorted(photos.iterdir()) if path.suffix == ".png"]
    return [Sample(id=str(n), image=str(paths[n % len(paths)])) for n in range(count)]


def every(made) -> dict[str, Prediction]:
    lines = [row for batch in made for row in batch]
    found = {row.id: row for row in lines}
    assert len(found) == len(lines)
    return found
