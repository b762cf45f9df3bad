"""Finds the images that the arguments of ``cutline caption`` name."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from cutline.core.errors import CutlineError
from cutline.core.records import Sample
from cutline.data.dataset import MARKER, Dataset
from cutline.images.formats import IMAGE_SUFFIXES


def find_images(arguments: Sequence[str], split: str = "") -> list[Sample]:
    """Finds images: files, folders (searched at any depth), a prepared dataset, "-" for stdin.

    Raises:
        CutlineError: an argument does not exist, or there are no images.
    """
    if len(arguments) == 1 and is_dataset(arguments[0]):
        dataset = Dataset.open(arguments[0])
        return list(dataset.split(split) if split else dataset)
    if split:
        raise CutlineError(f"--split {split} needs a prepared dataset.", "Make one with cutline prepare.")
    paths: dict[str, None] = {}
    for argument in arguments:
        if argument == "-":
            paths |= dict.fromkeys(_from_stdin())
        elif Path(argument).is_dir():
            paths |= dict.fromkeys(_in_folder(argument))
        elif os.path.lexists(argument):
            paths[argument] = None
        else:
            raise CutlineError(f"There is no image or folder {argument}.", "Check the path.")
    if not paths:
        raise CutlineError(f"No images in {', '.join(arguments)}.", f"Images end in {', '.join(IMAGE_SUFFIXES)}.")
    return [Sample(id=path, image=path) for path in paths]


def is_dataset(path: str) -> bool:
    return (Path(path) / MARKER).is_file()


def _from_stdin() -> Iterator[str]:
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a file name may be any bytes
    for line in sys.stdin:
        if path := line.rstrip("\r\n"):
            yield path


def _in_folder(folder: str) -> list[str]:
    """A folder's images at any depth, without hidden files. A folder that can't be read is listed itself, and fails
    later with a reason, like a broken image."""
    paths: list[str] = []

    def unreadable(error: OSError) -> None:
        paths.append(str(error.filename))

    for parent, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        images = [name for name in files if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")]
        paths += [os.path.join(parent, name) for name in images]
    return sorted(paths)
