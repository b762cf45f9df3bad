"""COCO caption annotations: captions_train2017.json and its like, one file or a folder with several."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
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
    finder = ImageFinder(_folders(path, _name(path)), settings.images)
    yield from samples(content, path, finder.find)


def samples(
    content: dict[str, Any], path: Path, find: Callable[[str], str], images_listed: bool = True
) -> Iterator[Sample | Problem]:
    """The samples of a parsed file.

    Args:
        path: of the file, for the split and for messages.
        find: an image's name → its path.
        images_listed: a caption whose image isn't in the list of images is a problem; False: it is a sample of its
            own, whose image has no name.
    """
    captions: dict[Any, list[str]] = {}
    files: dict[Any, dict[str, Any]] = {}
    for number, image in enumerate(_list(content.get("images")), 1):
        if isinstance(image, dict) and _is_id(image.get("id")) and isinstance(image.get("file_name"), str):
            captions[image["id"]] = []
            files[image["id"]] = image
        elif images_listed:
            where = f"{path.name}, image {number}"
            yield Problem(id=where, reason="bad_row", detail="it has no id or file_name")
    for number, note in enumerate(_list(content.get("annotations")), 1):
        where = f"{path.name}, annotation {number}"
        if not isinstance(note, dict) or not _is_id(note.get("image_id")) or "caption" not in note:
            yield Problem(id=where, reason="bad_row", detail="it has no image_id or caption")
        elif not isinstance(note["caption"], str | None):
            yield Problem(id=where, reason="bad_row", detail=f"its caption is no text: {note['caption']!r:.60}")
        elif images_listed and note["image_id"] not in captions:
            detail = f"image {note['image_id']} is not in the list of images"
            yield Problem(id=where, reason="caption_without_image", detail=detail)
        else:
            captions.setdefault(note["image_id"], []).append(note["caption"] or "")
    split = next((split for split in ("train", "val", "test") if re.search(split, _name(path))), "")
    for image_id, texts in captions.items():
        image = files.get(image_id, {})
        yield Sample(
            id=str(image_id),
            image=find(image["file_name"]) if image else "",
            captions=tuple(texts),
            split=split,
            extra={key: value for key, value in image.items() if key not in ("id", "file_name")},
        )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_id(value: Any) -> bool:
    return isinstance(value, (str, int))


def _name(path: Path) -> str:
    return path.stem.removeprefix("captions_")


def _folders(path: Path, name: str) -> list[Path]:
    """Where the images of captions_train2017.json lie: as unpacked by COCO, beside annotations/ in train2017/."""
    roots = [path.parent, path.parent.parent] if path.parent.name == "annotations" else [path.parent]
    return [folder for root in roots for folder in (root / name, root / "images" / name, root / "images", root)]
