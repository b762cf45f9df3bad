"""WebDataset tars: members with the same name and different endings make a sample. Images are read where they lie."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cutline.core.errors import DataError
from cutline.core.records import Sample
from cutline.data.problem import Problem
from cutline.data.settings import DataSettings
from cutline.data.splits import known_name
from cutline.data.tables.columns import CAPTION, texts
from cutline.images.formats import IMAGE_SUFFIXES
from cutline.images.open import member_path

DESCRIPTION = "WebDataset: a .tar, or a folder of them, with 000.jpg beside 000.txt or 000.json"


def recognises(source: Path) -> bool:
    if source.is_dir():
        return bool(_tars(source)) and not any(source.glob("metadata.*"))
    return source.suffix.lower() == ".tar"


def read(source: Path, settings: DataSettings) -> Iterator[Sample | Problem]:
    """
    Captions are the .txt's lines, or in the .json captions, caption or text; its id, split and group count too, and the
    rest is kept. Without them the id is <tar>/<name>, and the split the beginning of the tar's name (train-000.tar).

    Raises:
        DataError: no tar, or one that can't be read.
    """
    tars = _tars(source) if source.is_dir() else [source]
    if not tars:
        raise DataError(f"{source} has no .tar.", "Name a tar or a folder with tars in [data] source.")
    for path in tars:
        try:
            with tarfile.open(path, "r:") as tar:  # uncompressed: only there can a member be read where it lies
                yield from _read(tar, path)
        except tarfile.ReadError as error:
            raise DataError(f"{path} can't be read as a tar: {error}.", "Unpack a compressed one first.") from error


def _tars(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.tar"), *folder.glob("*/*.tar")])


def _read(tar: tarfile.TarFile, path: Path) -> Iterator[Sample | Problem]:
    listed: Any = tar  # its list of members is emptied as we go: of a million it would take a gigabyte
    key = ""
    members: dict[str, tarfile.TarInfo] = {}
    for member in tar:
        if not member.isfile():
            listed.members = []
            continue
        name, ending = _divided(member.name)
        if name != key and members:
            yield _sample(tar, path, key, members)
            members = {}
        key = name
        members[ending] = member
        listed.members = []
    if members:
        yield _sample(tar, path, key, members)


def _divided(name: str) -> tuple[str, str]:
    """The first dot of the last part divides, as in WebDataset: "a/b.c/000.seg.png" → "a/b.c/000", "seg.png"."""
    folder, slash, last = name.rpartition("/")
    stem, _, ending = last.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


def _sample(tar: tarfile.TarFile, path: Path, key: str, members: dict[str, tarfile.TarInfo]) -> Sample | Problem:
    identity = f"{path.stem}/{key}"
    image = next((members[ending] for ending in members if f".{ending}".endswith(IMAGE_SUFFIXES)), None)
    if image is None:
        return Problem(id=identity, reason="caption_without_image", detail=f"only {', '.join(members)}")
    row: dict[str, Any] = {}
    lines: list[str] = []
    try:
        if "json" in members:
            row = _object(json.loads(_text(tar, members["json"])))
        if "txt" in members:
            lines = [line for line in _text(tar, members["txt"]).splitlines() if line.strip()]
    except ValueError as error:
        return Problem(id=identity, reason="bad_row", detail=f"{key}: {error}")
    column = next((name for name in CAPTION if row.get(name)), None)
    captions = texts(row.get(column)) if column else lines
    used = {"id", "split", "group", "context", "extra", column}
    return Sample(
        id=str(row.get("id") or identity),
        image=member_path(path, image.offset_data, image.size),
        captions=tuple(captions),
        split=str(row.get("split") or known_name(path.name.partition("-")[0])),
        group=str(row.get("group") or ""),
        context={str(name): str(text) for name, text in _object(row.get("context")).items()},
        extra=_object(row.get("extra")) | {name: value for name, value in row.items() if name not in used},
    )


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = tar.extractfile(member)
    return file.read().decode("utf-8-sig") if file else ""


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
