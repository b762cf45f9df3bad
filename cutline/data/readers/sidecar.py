"""A folder of images, each with a text file of the same name beside it: one caption a line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cutline.core.errors import DataError
from cutline.core.records import Sample
from cutline.data.problem import Problem
from cutline.data.settings import DataSettings
from cutline.data.splits import known_name
from cutline.images.formats import IMAGE_SUFFIXES

DESCRIPTION = "a folder of images, each with a .txt file of the same name beside it, one caption a line"

_NO_CAPTIONS = ("readme", "license", "licence")


def recognises(source: Path) -> bool:
    if not source.is_dir() or _has_table(source):
        return False
    return any(name.lower().endswith(IMAGE_SUFFIXES) for _, names in _walk(source) for name in names)


def read(source: Path, settings: DataSettings) -> Iterator[Sample | Problem]:
    """
    The folders train/, val/ (validation/ …) and test/ directly below the source give the split.

    Raises:
        DataError: the source is no folder.
    """
    if not source.is_dir():
        raise DataError(f"{source} is not a folder.", "Name the folder that holds the images and their .txt files.")
    root = Path(settings.images) if settings.images else source
    for folder, names in _walk(root):
        inside = Path(folder).relative_to(root)
        split = known_name(inside.parts[0]) if inside.parts else ""
        images = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
        present = set(names)
        used: set[str] = set()
        for name in images:
            identity = (inside / name).as_posix()
            text = next((file for file in (f"{Path(name).stem}.txt", f"{name}.txt") if file in present), None)
            captions: tuple[str, ...] = ()
            if text is not None:
                used.add(text)
                try:
                    lines = (Path(folder) / text).read_text(encoding="utf-8-sig").splitlines()
                except (OSError, UnicodeError) as error:
                    yield Problem(id=identity, reason="bad_row", detail=f"{text} can't be read: {error}")
                    continue
                captions = tuple(line for line in lines if line.strip())
            yield Sample(id=identity, image=str(Path(folder) / name), captions=captions, split=split or "")
        for name in names:
            if name.endswith(".txt") and name not in used and Path(name).stem.lower() not in _NO_CAPTIONS:
                detail = "there is no image of that name beside it"
                yield Problem(id=(inside / name).as_posix(), reason="caption_without_image", detail=detail)


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Folders and their files in one fixed order, hidden ones left out."""
    for folder, below, names in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield folder, sorted(name for name in names if not name.startswith("."))


def _has_table(source: Path) -> bool:
    """Whether a table beside the images says what they are: then another reader knows better."""
    endings = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
    folders = [source, *(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))]
    if any(path.suffix.lower() in endings for path in source.iterdir()):
        return True
    if any(source.glob("*.tar")) or (source / "captioning_dataset.json").is_file():
        return True
    if any(source.glob("dataset_*.json")) or any(source.glob("captions_*.json")):
        return True
    return any((folder / f"metadata{ending}").exists() for folder in folders for ending in endings) or any(
        source.glob("annotations/captions_*.json")
    )
