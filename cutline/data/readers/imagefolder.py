"""The Hugging Face imagefolder layout, and with it any dataset that Cutline has prepared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cutline.core.errors import DataError
from cutline.core.records import Sample
from cutline.data.dataset import IMAGE_COLUMNS, MARKER, TABLE, Dataset
from cutline.data.problem import Problem
from cutline.data.settings import DataSettings
from cutline.data.splits import known_name
from cutline.data.tables.image_finder import ImageFinder
from cutline.data.tables.samples import columns_of, read_table

DESCRIPTION = "a Hugging Face imagefolder (with metadata.csv, .jsonl or .parquet), or a dataset prepared by Cutline"

_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def recognises(source: Path) -> bool:
    return source.is_dir() and bool(_tables(source))


def read(source: Path, settings: DataSettings) -> Iterator[Sample | Problem]:
    """
    The split is the table's own column, or the folder that the table or the image lies in.

    Raises:
        DataError: there is no metadata file.
    """
    if (source / MARKER).is_file() and (source / TABLE).is_file():
        for sample in Dataset.open(source):
            yield replace(sample, extra={key: v for key, v in sample.extra.items() if key not in IMAGE_COLUMNS})
        return
    tables = _tables(source) if source.is_dir() else []
    if not tables:
        raise DataError(
            f"{source} has no {', '.join(_METADATA)}.",
            'Images with .txt files, or without captions, are [data] format = "sidecar".',
        )
    for table in tables:
        inside = table.parent.relative_to(source)
        finder = ImageFinder([table.parent], settings.images)
        for item in read_table(table, settings, finder, known_name(inside.name)):
            if isinstance(item, Problem):
                yield item if inside == Path() else replace(item, id=f"{inside.name}/{item.id}")
                continue
            path = Path(item.image)
            if not item.split and path.is_relative_to(source):
                item = replace(item, split=known_name(path.relative_to(source).parts[0]))
            # the same file name may come in train/ and in test/
            named = path.is_relative_to(table.parent) and item.id == path.relative_to(table.parent).as_posix()
            yield replace(item, id=f"{inside.name}/{item.id}") if named and inside != Path() else item


def columns(source: Path, settings: DataSettings) -> dict[str, list[str]]:
    if (source / MARKER).is_file() and (source / TABLE).is_file():
        return {}
    return columns_of(_tables(source)[0], settings)


def _tables(folder: Path) -> list[Path]:
    folders = [folder, *sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))]
    return [path for folder in folders for name in _METADATA if (path := folder / name).is_file()]
