"""Merges the human captions and the kept web captions into one prepared dataset."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cutline.bootstrap.captions import ScoredCaption, by_image
from cutline.core.files import replaced, write_atomically
from cutline.data import tars
from cutline.data.dataset import FORMAT_VERSION, MARKER, SCHEMA, Dataset, write_table

#: Key in a sample's ``extra``: for each of its captions "human", "web" or "synthetic".
PROVENANCE = "captions_from"


@dataclass(frozen=True)
class Merged:
    """The merged dataset, and its numbers of images.

    Attributes:
        web, of: number of web images in it, and in the web dataset.
        held_out: number of web images left out because the human val or test split has the same picture.
    """

    path: Path
    human: int
    web: int
    of: int
    held_out: int


def merge(
    human: Dataset | None, web: Dataset, captions: Sequence[ScoredCaption], keep: Sequence[bool], folder: Path
) -> Merged:
    """Writes the merged dataset, its marker last. Image files are hard-linked where possible, else copied."""
    (folder / MARKER).unlink(missing_ok=True)  # the dataset is incomplete until the marker is back
    kept = by_image(captions, keep)
    ours = list(_rows(human)) if human is not None else []
    held = {row["sha256"] for row in ours if row["split"] not in ("", "train")}
    matching = [row for row in _rows(web) if any(stay for _, stay in kept.get(row["id"], ()))]
    joining = [row for row in matching if row["sha256"] not in held]
    for dataset, rows in ((human, ours), (web, joining)):
        for row in rows:
            assert dataset is not None
            row["file_name"] = _link(dataset.path, row, folder)
    write_table(folder, [*map(_human, ours), *(_web(row, kept[row["id"]]) for row in joining)])
    whole = Dataset(folder)
    marker = {
        "format_version": FORMAT_VERSION,
        "samples": len(whole),
        "splits": whole.splits(),
        "fingerprint": whole.fingerprint,
    }
    write_atomically(folder / MARKER, json.dumps(marker, indent=2) + "\n")
    return Merged(folder, len(ours), len(joining), len(web), len(matching) - len(joining))


def _rows(dataset: Dataset) -> Iterator[dict[str, Any]]:
    columns = [dataset.column(name) for name in SCHEMA.names]
    for values in zip(*columns, strict=True):
        yield dict(zip(SCHEMA.names, values, strict=True))


def _human(row: Mapping[str, Any]) -> dict[str, Any]:
    extra = json.loads(row["extra"])
    before = extra.get(PROVENANCE, ["human"] * len(row["captions"]))  # of an earlier round
    return {**row, "extra": json.dumps(extra | {PROVENANCE: before}, ensure_ascii=False)}


def _web(row: Mapping[str, Any], captions: Sequence[tuple[ScoredCaption, bool]]) -> dict[str, Any]:
    of = [one for one, stay in captions if stay]
    extra = json.loads(row["extra"]) | {PROVENANCE: [one.kind for one in of]}
    return {
        **row,
        "id": f"web/{row['id']}",
        "group": f"web/{row['group']}",
        "captions": [one.text for one in of],
        "split": "train",
        "extra": json.dumps(extra, ensure_ascii=False),
    }


def _link(dataset: Path, row: Mapping[str, Any], folder: Path) -> str:
    """Links or copies an image into the merged dataset; returns its file name there."""
    name = tars.as_file(dataset, row["file_name"], row["sha256"], folder)
    source, target = dataset / name, folder / name
    if target.exists():
        return name
    with replaced(target, durable=False) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # another file system
            shutil.copyfile(source, temporary)
    return name
