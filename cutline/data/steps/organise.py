"""Writes the finished dataset as WebDataset tars, beside the fan-out folders that Cutline itself reads."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cutline import jsonl
from cutline.data.steps import Place, Step
from cutline.recipe import Section
from cutline.records import Sample
from cutline.runs import fingerprint

if TYPE_CHECKING:
    from cutline.data.dataset import Dataset

DESCRIPTION = "the dataset → fan-out folders, and WebDataset tars if wanted"
PHASE: Literal["end"] = "end"
ORDER = 20
REASONS: dict[str, str] = {}

#: Beginning like this, ``datasets`` passes it over: an imagefolder with tars in it is read as the tars only.
FOLDER = "__shards__"


class Settings(Section):
    """[data.steps.organise]"""

    tars: bool = Field(
        default=True,
        description="write __shards__/<split>-000000.tar … for WebDataset's loaders, too; images/00 … ff is "
        "always there",
    )
    samples_per_tar: int = Field(default=5000, ge=1, description="samples in one tar")


def open(settings: Settings, place: Place) -> Step:
    """Tars are made of all samples: preparing calls ``write_tars`` when the table is written."""

    def step(sample: Sample) -> Sample:
        return sample

    return step


def write_tars(dataset: Dataset, settings: Settings) -> dict[str, int]:
    """Writes the tars; one that is there already with the same samples is kept, others are removed.

    Each sample is three members: its image, ``.txt`` with its first caption, ``.json`` with everything.

    Returns:
        Split → number of tars.
    """
    folder = dataset.path / FOLDER
    folder.mkdir(exist_ok=True)
    index_file = folder / "index.json"
    known = json.loads(index_file.read_text()) if index_file.exists() else {}
    index: dict[str, str] = {}
    counts: dict[str, int] = {}
    for split in dataset.splits():
        for number, chunk in enumerate(_chunks(iter(dataset.split(split)), settings.samples_per_tar)):
            name = f"{re.sub(r'[^A-Za-z0-9_]+', '-', split) or 'all'}-{number:06d}.tar"
            index[name] = fingerprint([[one.id, one.extra["sha256"], one.captions, dict(one.context)] for one in chunk])
            if known.get(name) != index[name] or not (folder / name).exists():
                _write(folder / name, chunk, number * settings.samples_per_tar)
            counts[split] = number + 1
    for path in folder.iterdir():
        if path.name not in index and path != index_file:
            path.unlink()
    jsonl.write_atomically(index_file, json.dumps(index, indent=1) + "\n")
    return counts


def _chunks(samples: Iterator[Sample], size: int) -> Iterator[list[Sample]]:
    while chunk := list(islice(samples, size)):
        yield chunk


def _write(path: Path, samples: list[Sample], first: int) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
        for number, sample in enumerate(samples, first):
            key = f"{number:09d}"
            image = Path(sample.image)
            row = {
                "id": sample.id, "captions": sample.captions, "split": sample.split, "group": sample.group,
                "context": dict(sample.context), "extra": dict(sample.extra),
            }  # fmt: skip
            _add(tar, f"{key}{image.suffix}", image.read_bytes())
            if sample.captions:
                _add(tar, f"{key}.txt", sample.captions[0].encode())
            _add(tar, f"{key}.json", json.dumps(row, ensure_ascii=False).encode())
    os.replace(temporary, path)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # no time, no owner: the same samples give the same bytes
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
