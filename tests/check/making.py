"""Subjects to probe: miniatures of families, sound or broken on purpose."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cutline.check.result import ProbeReport
from cutline.check.runner import run_probes
from cutline.check.subject import ProbeSubject
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
    "a red circle above a blue square",
    "a green triangle",
    "a yellow square to the left of a red circle",
    "a purple circle beside a small orange triangle",
)

#: Families that the test has broken, by name.
BROKEN: dict[str, type[Family]] = {}


def real_class(name: str) -> Any:
    """The class of a family's miniature."""
    return type(find(name).tiny(CAPTIONS))


def broken(name: str, **changes: Any) -> type[Family]:
    """A subclass of the family with some methods replaced; tests then find it under the family's name."""
    real = real_class(name)
    BROKEN[name] = type(real.__name__, (real,), changes | {"__module__": real.__module__})
    return BROKEN[name]


def subject(
    folder: Path,
    kind: type[Family] | str,
    *,
    captions: Sequence[str] = CAPTIONS,
    tiny: bool = True,
    **changes: Any,
) -> ProbeSubject:
    """A family's miniature with a drawing for each caption."""
    family = find(kind) if isinstance(kind, str) else kind
    samples = []
    for number, caption in enumerate(captions):
        path = folder / f"{number}.png"
        drawing(number, (64, 64)).save(path)
        samples.append(Sample(id=str(number), image=str(path), captions=(caption,)))
    defaults: dict[str, Any] = {
        "train": TrainSettings(),
        "generate": GenerateSettings(max_new_tokens=20),
        "reopen": lambda: family.tiny(captions),
        "scratch": folder / "scratch",
    }
    return ProbeSubject(family.tiny(captions), samples, tiny=tiny, **(defaults | changes))


def run(probed: ProbeSubject, *only: str, debug: bool = True) -> dict[str, ProbeReport]:
    """The probes' reports by name; ``debug``: raise exceptions of the model."""
    return {report.probe: report for report in run_probes(probed, only, debug=debug)}


def failures(reports: dict[str, ProbeReport]) -> set[str]:
    return {name for name, report in reports.items() if report.status == "failed"}


def dataset(folder: Path, rows: list[dict[str, str]], **columns: Any) -> Dataset:
    """A prepared dataset of drawings; the column ``picture`` chooses the drawing of a row."""
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
