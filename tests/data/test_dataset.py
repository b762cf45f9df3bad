"""Prepared datasets: read lazily, read back, and read by Hugging Face as imagefolders."""

from __future__ import annotations

import json
import pickle
import time
from pathlib import Path
from typing import Any

import pytest

from cutline.core.errors import DataError
from cutline.core.records import Sample
from cutline.data import readers
from cutline.data.dataset import IMAGE_COLUMNS, Dataset
from cutline.data.prepare.table_rows import table_row
from cutline.images.open import open_image
from tests.data.making import pictures, run


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its path has words in it that imagefolder could take for splits."""
    place = tmp_path_factory.mktemp("test_train")
    images = pictures(place / "s", 12)
    rows = [
        {"image": name, "caption": f"größe {name}", "headline": "H", "source": "NWPU", "n": index}
        for index, name in enumerate(images)
    ]
    source = place / "s/captions.jsonl"
    source.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    run(source, place / "dataset", columns={"context": ["headline"]}, val=0.25, test=0.25)
    return place / "dataset"


def test_indexing_slicing_splits_and_columns(prepared: Path) -> None:
    dataset = Dataset.open(prepared)
    assert len(dataset) == 12
    assert dataset.splits() == {"train": 6, "val": 3, "test": 3}
    assert list(dataset) == dataset[:] == [dataset[index] for index in range(12)]
    assert dataset[-1] == dataset[11]
    with pytest.raises(IndexError):
        dataset[12]
    sample = dataset[0]
    assert sample.context == {"headline": "H"}
    assert sample.extra["source_"] == "NWPU"  # the table's own column of that name
    assert sample.extra["source"] == "images/0.png"
    assert sample.group == sample.id == "0.png"
    train = dataset.split("train")
    assert len(train) == 6
    assert {sample.split for sample in train} == {"train"}
    assert train.column("id") == [sample.id for sample in train]
    assert train[2] == list(train)[2]
    assert train.splits() == {"train": 6}
    with pytest.raises(DataError, match=r"no split 'dev'.*train \(6\), val \(3\), test \(3\)"):
        dataset.split("dev")
    with pytest.raises(DataError, match="no column"):
        dataset.column("caption")
    assert list(pickle.loads(pickle.dumps(train))) == list(train)


def test_opening_reads_no_row_and_the_fingerprint_sees_everything(prepared: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(prepared)
    assert "_table" not in vars(dataset)
    dataset.splits()
    len(dataset)
    assert "_table" not in vars(dataset)
    assert dataset.fingerprint == Dataset.open(prepared).fingerprint == dataset.marker["fingerprint"]
    assert len({dataset.fingerprint, dataset.split("train").fingerprint, dataset.split("val").fingerprint}) == 3
    run(prepared, tmp_path / "other", columns={}, rename_splits={"val": "test"})
    assert Dataset.open(tmp_path / "other").fingerprint != dataset.fingerprint


def test_a_folder_that_is_no_dataset(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no dataset"):
        Dataset.open(tmp_path / "nowhere")
    with pytest.raises(DataError, match="Make one with cutline prepare"):
        Dataset.open(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    (tmp_path / "metadata.parquet").write_bytes(b"")
    with pytest.raises(DataError, match="is damaged"):
        Dataset.open(tmp_path)
    (tmp_path / "dataset.json").write_text('{"format_version": 99}')
    with pytest.raises(DataError, match="format 99"):
        Dataset.open(tmp_path)


def test_a_prepared_dataset_is_a_source_again(prepared: Path, tmp_path: Path) -> None:
    assert readers.recognise(prepared) == "imagefolder"
    report = run(prepared, tmp_path / "again")
    assert (report.split_by, report.lost) == ("source", 0)

    def known(sample: Sample) -> tuple[Any, ...]:
        extra = {key: value for key, value in sample.extra.items() if key not in IMAGE_COLUMNS}
        return sample.id, sample.captions, sample.split, sample.group, sample.context, extra, sample.extra["sha256"]

    assert list(map(known, Dataset.open(tmp_path / "again"))) == list(map(known, Dataset.open(prepared)))


def test_hugging_face_reads_it_as_an_imagefolder(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(prepared), cache_dir=str(tmp_path))
    assert list(loaded) == ["train"]  # one table; our splits are its column
    ours = Dataset.open(prepared)
    assert len(loaded["train"]) == len(ours)
    for row, sample in zip(loaded["train"], ours, strict=True):
        assert (row["id"], row["split"], tuple(row["captions"])) == (sample.id, sample.split, sample.captions)
        assert json.loads(row["context"]) == sample.context
        assert row["image"].convert("RGB").tobytes() == open_image(sample.image).tobytes()


def test_a_hundred_thousand_rows_open_at_once(tmp_path: Path) -> None:
    from cutline.data import dataset as module
    from cutline.images.open import ImageFacts

    facts = ImageFacts("ab" * 32, 8, 8, ".png")
    rows = (table_row(Sample(id=str(i), image="", captions=("x",), split="train"), facts, "a") for i in range(100_000))
    module.write_table(tmp_path, rows)
    (tmp_path / "dataset.json").write_text('{"format_version": 1}')
    start = time.perf_counter()
    opened = Dataset.open(tmp_path)
    assert len(opened) == 100_000
    assert opened.splits() == {"train": 100_000}
    assert time.perf_counter() - start < 0.5
    assert opened[99_999].id == "99999"
