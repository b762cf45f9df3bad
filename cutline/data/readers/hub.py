"""Datasets of the Hugging Face hub, or ones that ``datasets`` saved here, through that library."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cutline.core import hub
from cutline.core.cache import cache_root
from cutline.core.errors import DataError
from cutline.core.files import write_atomically
from cutline.core.records import Sample
from cutline.data.problem import Problem
from cutline.data.settings import DataSettings
from cutline.data.tables import columns
from cutline.data.tables.columns import texts

DESCRIPTION = 'a dataset of the Hugging Face hub, source = "hub:owner/name" or "hub:owner/name/configuration"'

PREFIX = "hub:"


def recognises(source: Path) -> bool:
    return str(source).startswith(PREFIX) or (source.is_dir() and (source / "dataset_dict.json").is_file())


def read(source: Path, settings: DataSettings) -> Iterator[Sample | Problem]:
    """
    Every split; the columns are found as in tables, and [data.columns] says what can't be. The images' bytes are put
    into the cache (``cache_root``), since a sample names a file.

    Raises:
        DataError: the dataset can't be loaded, or has no column with images.
    """
    name = str(source).removeprefix(PREFIX)
    cache = cache_root() / "hub"
    for split, table in _load(name).items():
        image = settings.columns.image or _image_column(table)
        if image is None:
            raise DataError(f"{name} has no column with images.", "Say which it is: [data.columns] image = …")
        chosen = settings.columns.model_copy(update={"image": image})
        meaning = columns.assign(table.column_names, chosen, Path(name), settings.captions_required)
        columns.log_choice(table.column_names, meaning, chosen, Path(name))
        for number, row in enumerate(_undecoded(table, image)):
            identity = f"{split}/{number}"
            if meaning.id and isinstance(row.get(meaning.id), str | int):
                identity = str(row[meaning.id])
            path = _stored(row.get(image), cache)
            if path is None:
                yield Problem(id=identity, reason="missing", detail="the row has no image")
                continue
            yield Sample(
                id=identity,
                image=path,
                captions=tuple(text for column in meaning.captions for text in texts(row.get(column))),
                split=str(row.get(meaning.split) or "") if meaning.split else split,
                group=str(row.get(meaning.group) or "") if meaning.group else "",
                context={column: str(row[column]) for column in meaning.context if row.get(column)},
                extra={column: row[column] for column in meaning.extra if row.get(column) not in (None, "")},
            )


def _load(name: str) -> dict[str, Any]:
    import datasets

    try:
        if (Path(name) / "dataset_dict.json").is_file():
            found: Any = datasets.load_from_disk(name)
        else:
            parts = name.split("/")
            is_folder = Path(name).exists()
            repository = name if is_folder else "/".join(parts[:2])
            source = hub.resolve(repository, "dataset")
            found = datasets.load_dataset(source, None if is_folder else "/".join(parts[2:]) or None)
    except Exception as error:  # the library raises whatever its parts raise
        raise DataError(
            f"{name} can't be loaded: {' '.join(str(error).split())[:300]}.",
            "Is the name right, and the hub reachable?",
        ) from error
    return dict(found)


def _image_column(table: Any) -> str | None:
    import datasets

    return next((name for name, kind in table.features.items() if isinstance(kind, datasets.Image)), None)


def _undecoded(table: Any, image: str) -> Any:
    import datasets

    if isinstance(table.features.get(image), datasets.Image):
        return table.cast_column(image, datasets.Image(decode=False))
    return table


def _stored(value: Any, cache: Path) -> str | None:
    """The path of an image: its own, or where its bytes are put."""
    if isinstance(value, str):
        return value or None
    if not isinstance(value, dict):
        return None
    data, path = value.get("bytes"), value.get("path")
    if not data:
        return str(path) if path else None
    digest = hashlib.sha256(data).hexdigest()
    target = cache / digest[:2] / digest
    if not target.exists():
        write_atomically(target, data)
    return str(target)
