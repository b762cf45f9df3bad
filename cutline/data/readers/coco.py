"""COCO caption annotations: captions_train2017.json and its like, one file or a folder with several."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cutline.core.errors import DataError
from cutline.core.records import Sample
from cutline.data.problem import Problem
from cutline.data.settings import DataSettings
from cutline.data.tables.image_finder import ImageFinder
from cutline.data.tables.rows import read_json

DESCRIPTION = "COCO caption annotations, captions_*.json (images and annotations), a file or a folder with several"


def recognises(source: Path) -> bool:
    if source.is_dir():
        return bool(_files(source))
    if source.suffix.lower() != ".json" or not source.is_file() or source.name == "captioning_dataset.json":
        return False
    with open(source, "rb") as file:
        head = file.read(262144)
    fields = (b'"file_name"', b'"annotations"', b'"image_id"')
    return (
        head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
        and b'"sentences"' not in head
        and any(field in head for field in fields)
    )


def read(source: Path, settings: DataSettings) -> Iterator[Sample | Problem]:
    """
    The split comes from the file's name (captions_val2017.json: val); the id is COCO's image id.

    Raises:
        DataError: no such file.
    """
    files = _files(source) if source.is_dir() else [source]
    if not files:
        raise DataError(f"{source} has no captions_*.json.", "Name the file itself in [data] source.")
    for file in files:
        yield from _read_file(file, settings)


def _files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("captions_*.json"), *folder.glob("annotations/captions_*.json")])


def _read_file(path: Path, settings: DataSettings) -> Iterator[Sample | Problem]:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise DataError(f"{path} has no list of images.", "COCO's layout is {'images': […], 'annotations': […]}.")
    captions: dict[Any, list[str]] = {}
    strangers: list[Problem] = []
    for number, image in enumerate(content["images"], 1):
        if isinstance(image, dict) and "id" in image and isinstance(image.get("file_name"), str):
            captions[image["id"]] = []
        else:
            strangers.append(
                Problem(id=f"{path.name}, image {number}", reason="bad_row", detail="it has no id or file_name")
            )
    for number, note in enumerate(content.get("annotations") or [], 1):
        where = f"{path.name}, annotation {number}"
        if not isinstance(note, dict) or "image_id" not in note or "caption" not in note:
            strangers.append(Problem(id=where, reason="bad_row", detail="it has no image_id or caption"))
        elif note["image_id"] not in captions:
            detail = f"image {note['image_id']} is not in the list of images"
            strangers.append(Problem(id=where, reason="caption_without_image", detail=detail))
        else:
            captions[note["image_id"]].append(str(note["caption"] if note["caption"] is not None else ""))
    yield from strangers
    name = path.stem.removeprefix("captions_")
    finder = ImageFinder(_folders(path, name), settings.images)
    split = next((split for split in ("train", "val", "test") if re.search(split, name)), "")
    for image in content["images"]:
        if isinstance(image, dict) and image.get("id") in captions and isinstance(image.get("file_name"), str):
            yield Sample(
                id=str(image["id"]),
                image=finder.find(image["file_name"]),
                captions=tuple(captions[image["id"]]),
                split=split,
                extra={key: value for key, value in image.items() if key not in ("id", "file_name")},
            )


def _folders(path: Path, name: str) -> list[Path]:
    """Where the images of captions_train2017.json lie: as unpacked by COCO, beside annotations/ in train2017/."""
    roots = [path.parent, path.parent.parent] if path.parent.name == "annotations" else [path.parent]
    return [folder for root in roots for folder in (root / name, root / "images" / name, root / "images", root)]
