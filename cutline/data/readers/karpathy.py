"""Karpathy's JSON files (dataset_coco.json, dataset_flickr8k.json, dataset_flickr30k.json, dataset_rsicd.json)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cutline.core.errors import DataError
from cutline.core.records import Sample
from cutline.data.problem import Problem
from cutline.data.settings import DataSettings
from cutline.data.tables.columns import texts
from cutline.data.tables.image_finder import ImageFinder
from cutline.data.tables.rows import read_json

DESCRIPTION = "Karpathy's JSON layout, dataset_*.json: images with sentences, split and filename"

_USED = ("sentences", "sentids", "filename", "filepath", "split", "cocoid")


def recognises(source: Path) -> bool:
    if source.is_dir():
        return len(_files(source)) == 1
    if source.suffix.lower() != ".json":
        return False
    with open(source, "rb") as file:
        head = file.read(262144)
    return b'"sentences"' in head and head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def read(source: Path, settings: DataSettings) -> Iterator[Sample | Problem]:
    """
    The id is COCO's image id where there is one ("391895"), otherwise the file name.

    Raises:
        DataError: not such a file.
    """
    if source.is_dir():
        found = _files(source)
        if len(found) != 1:
            raise DataError(f"{source} has {len(found)} files dataset_*.json, not one.", "Name the file itself.")
        source = found[0]
    content = read_json(source)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise DataError(f"{source} has no list of images.", "Karpathy's layout is {'images': [{'filename': …}]}.")
    folder = source.parent
    finder = ImageFinder([folder, folder / "images"], settings.images)
    yield from samples(images, source, finder.find)


def samples(images: list[Any], path: Path, find: Callable[[str], str]) -> Iterator[Sample | Problem]:
    """The samples of a parsed list of images; ``find`` turns an image's name into its path."""
    for number, image in enumerate(images, 1):
        yield _sample(image, find, f"{path.name}, image {number}")


def _files(folder: Path) -> list[Path]:
    """Those of Karpathy; the ``datasets`` library has files with such names, too."""
    return sorted(path for path in folder.glob("dataset_*.json") if path.stem not in ("dataset_dict", "dataset_info"))


def _sample(image: Any, find: Callable[[str], str], where: str) -> Sample | Problem:
    if not isinstance(image, dict) or not isinstance(image.get("filename"), str):
        return Problem(id=where, reason="bad_row", detail="it has no filename")
    name = image["filename"]
    path = f"{image['filepath']}/{name}" if image.get("filepath") else name
    return Sample(
        id=str(image.get("cocoid", name)),
        image=find(path),
        captions=tuple(texts(image.get("sentences"))),
        split=str(image.get("split") or ""),
        extra={key: value for key, value in image.items() if key not in _USED},
    )
