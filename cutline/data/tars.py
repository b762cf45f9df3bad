"""A dataset as WebDataset tars, beside its image files or instead of them.

Instead of them, the table names each image by its place in a tar ("__shards__/train-000000.tar#512+20480"), which
everything here opens like a file. Before preparing resumes with such a dataset, ``unpack`` makes files of the images
again, and at the end ``pack`` turns them into tars again, so that no other step knows of tars. The table says at each
moment where the images are: it names files until all tars are whole, and files go when it names the tars.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from cutline.core.files import replaced, write_atomically
from cutline.core.fingerprint import fingerprint
from cutline.core.records import Sample
from cutline.data.dataset import TABLE, Dataset, image_name, store_image, write_table
from cutline.images import formats as signatures
from cutline.images.open import ImageFacts, ImageProblem, container, member_path, read_bytes

if TYPE_CHECKING:
    from cutline.data.image_store import ImageStore
    from cutline.data.steps.layout import LayoutSettings

#: Beginning like this, ``datasets`` passes it over: an imagefolder with tars in it is read as the tars only.
FOLDER = "__shards__"


def write(dataset: Dataset, settings: LayoutSettings) -> dict[str, int]:
    """Writes the tars; one that is there already with the same samples is kept, others are removed.

    Each sample is three members: its image, ``.txt`` with its first caption, ``.json`` with everything. A kill leaves
    each tar whole or absent, and ``index.json`` names none that holds something else.

    Returns:
        Split → number of tars.
    """
    folder = dataset.path / FOLDER
    folder.mkdir(exist_ok=True)
    index_file = folder / "index.json"
    index: dict[str, str] = json.loads(index_file.read_text()) if index_file.exists() else {}
    wanted: set[str] = set()
    counts: dict[str, int] = {}
    for split in dataset.splits():
        for number, chunk in enumerate(_chunks(iter(dataset.split(split)), settings.samples_per_tar)):
            name = tar_name(split, number)
            wanted.add(name)
            state = fingerprint([_row(one) for one in chunk])
            if index.get(name) != state or not (folder / name).exists():
                index.pop(name, None)
                _save(index_file, index)
                _write(folder / name, chunk, number * settings.samples_per_tar)
                index[name] = state
                _save(index_file, index)
            counts[split] = number + 1
    for path in folder.iterdir():
        if path.name not in wanted and path != index_file:
            path.unlink()
    _save(index_file, {name: index[name] for name in sorted(wanted)})
    return counts


def remove(folder: Path) -> None:
    """Takes a dataset's tars away, when its recipe wants none any more."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def pack(dataset: Dataset, samples_per_tar: int, store: ImageStore) -> Dataset:
    """Lets the table name the images in the tars, which are whole, and removes the image files."""
    write_table(dataset.path, _placed(dataset.path, samples_per_tar))
    store.sweep(keep=(), aside=False)
    return Dataset(dataset.path)


def unpack(folder: Path) -> None:
    """Makes files of images that lie in tars only. What is lost there is fetched again from where it came."""
    if (folder / TABLE).is_file():
        for row in _rows(folder, ["file_name", "sha256"]):
            as_file(folder, row["file_name"], row["sha256"], folder)


def as_file(dataset: Path, file_name: str, sha256: str, folder: Path) -> str:
    """Stores an image of a dataset that lies in a tar as a file in another dataset's folder, or its own.

    Returns:
        Its name there; the same name when it is a file already, or can't be read any more.
    """
    if container(file_name) is None:
        return file_name
    try:
        data = read_bytes(dataset / file_name)
    except ImageProblem:
        return file_name
    kind = signatures.recognise(data[: signatures.HEAD])
    if isinstance(kind, signatures.Foreign) or hashlib.sha256(data).hexdigest() != sha256:
        return file_name
    facts = ImageFacts(sha256, 0, 0, kind.suffix)
    store_image(folder, facts, data)
    return image_name(facts)


def tar_name(split: str, number: int) -> str:
    return f"{re.sub(r'[^A-Za-z0-9_]+', '-', split) or 'all'}-{number:06d}.tar"


def _placed(folder: Path, samples_per_tar: int) -> Iterator[dict[str, Any]]:
    """The table's rows with the names of their images in the tars; the n-th of a split is the n-th in its tars."""
    seen: Counter[str] = Counter()
    places: dict[str, dict[str, str]] = {}  # of each split's present tar: key → member
    for row in _rows(folder):
        split = row["split"]
        number = seen[split]
        seen[split] += 1
        if number % samples_per_tar == 0:
            places[split] = _members(folder, f"{FOLDER}/{tar_name(split, number // samples_per_tar)}")
        yield row | {"file_name": places[split][_key(number)]}


def _members(folder: Path, name: str) -> dict[str, str]:
    """Key → name of the image, relative to the dataset."""
    with tarfile.open(folder / name, "r:") as tar:
        return {
            member.name.partition(".")[0]: member_path(Path(name), member.offset_data, member.size)
            for member in tar
            if not member.name.endswith((".txt", ".json"))
        }


def _rows(folder: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    for batch in pq.ParquetFile(folder / TABLE).iter_batches(8192, columns=columns):
        yield from batch.to_pylist()


def _save(path: Path, index: Mapping[str, str]) -> None:
    write_atomically(path, json.dumps(index, indent=1) + "\n")


def _chunks(samples: Iterator[Sample], size: int) -> Iterator[list[Sample]]:
    while chunk := list(islice(samples, size)):
        yield chunk


def _row(sample: Sample) -> dict[str, Any]:
    return {
        "id": sample.id, "captions": sample.captions, "split": sample.split, "group": sample.group,
        "context": dict(sample.context), "extra": dict(sample.extra),
    }  # fmt: skip


def _key(number: int) -> str:
    return f"{number:09d}"


def _write(path: Path, samples: list[Sample], first: int) -> None:
    with replaced(path) as temporary, tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
        for number, sample in enumerate(samples, first):
            key = _key(number)
            image = Path(sample.image)
            _add(tar, f"{key}{image.suffix}", image.read_bytes())
            if sample.captions:
                _add(tar, f"{key}.txt", sample.captions[0].encode())
            _add(tar, f"{key}.json", json.dumps(_row(sample), ensure_ascii=False).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # no time, no owner: the same samples give the same bytes
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
