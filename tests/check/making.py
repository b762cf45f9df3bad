"""Subjects to probe: miniatures of families, whole or broken on purpose."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from cutline.check.examine import examine
from cutline.check.subject import Subject
from cutline.check.verdict import Verdict
from cutline.core.records import Sample
from cutline.data.dataset import Dataset
from cutline.data.prepare.prepare import prepare
from cutline.data.settings import DataSettings
from cutline.families.base import Family
from cutline.families.open import find
from cutline.families.settings import GenerateSettings
from cutline.train.settings import TrainSettings
from tests.conftest import drawing

CAPTIONS = (
    "a red circle above a blue square", "a green triangle", "a yellow square to the left of a red circle",
    "a purple circle beside a small orange triangle",
)  # fmt: skip

#: Families that a test broke, by name.
BROKEN: dict[str, type[Family]] = {}


def real_class(name: str) -> Any:
    """The class that a family's miniature is of."""
    return type(find(name).tiny(CAPTIONS))


def broken(name: str, **changes: Any) -> type[Family]:
    """A family of that name with some of its methods replaced."""
    real = real_class(name)
    BROKEN[name] = type(real.__name__, (real,), changes | {"__module__": real.__module__})
    return BROKEN[name]


def subject(folder: Path, kind: type[Family] | str, *, tiny: bool = True, **changes: Any) -> Subject:
    """A family's miniature with four captioned drawings."""
    made = find(kind) if isinstance(kind, str) else kind
    samples = []
    for number, caption in enumerate(CAPTIONS):
        path = folder / f"{number}.png"
        drawing(number, (64, 64)).save(path)
        samples.append(Sample(id=str(number), image=str(path), captions=(caption,)))
    usual: dict[str, Any] = {
        "train": TrainSettings(),
        "generate": GenerateSettings(max_new_tokens=20),
        "fresh": lambda: made.tiny(CAPTIONS),
        "scratch": folder / "scratch",
    }
    return Subject(made.tiny(CAPTIONS), samples, tiny=tiny, **(usual | changes))


def verdicts(probed: Subject, *only: str, loud: bool = True) -> dict[str, Verdict]:
    """``loud``: an error of the model is raised."""
    return {verdict.probe: verdict for verdict in examine(probed, only, debug=loud)}


def failures(found: dict[str, Verdict]) -> set[str]:
    return {name for name, verdict in found.items() if verdict.status == "failed"}


def dataset(folder: Path, rows: list[dict[str, str]], **columns: Any) -> Dataset:
    """A prepared dataset of drawings; ``picture`` says which drawing a row shows."""
    source = folder / "source"
    (source / "images").mkdir(parents=True)
    with open(source / "captions.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["image", *(name for name in rows[0] if name != "picture")])
        writer.writeheader()
        for number, row in enumerate(rows):
            drawing(int(row.get("picture", number))).save(source / f"images/{number}.png")
            writer.writerow({"image": f"{number}.png"} | {name: v for name, v in row.items() if name != "picture"})
    prepare(DataSettings(source=str(source), columns=columns), folder / "dataset")
    return Dataset.open(folder / "dataset")
