"""The readers together, and those that read one layout: what they recognise, read, and say when it is wrong."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cutline.core.errors import DataError, RecipeError
from cutline.core.records import Sample
from cutline.data import readers
from cutline.data.settings import DataSettings
from tests.data.reading import image, read, write

REAL = Path(__file__).parents[2].parent / "shared/data"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the shared real data is not beside this repository")


def test_listing_imports_no_reader() -> None:
    code = "import sys; from cutline.data import readers; print(readers.names()); print(sorted(readers.descriptions()))"
    code += "; print([name for name in sys.modules if name.startswith('cutline.data.readers.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, described, imported = map(ast.literal_eval, done.stdout.splitlines())
    assert names == described == [
        "coco", "goodnews", "hub", "imagefolder", "karpathy", "nytimes800k", "sidecar", "table", "webdataset",
    ]  # fmt: skip
    assert imported == []


@pytest.mark.parametrize("name", readers.names())
def test_every_reader_keeps_the_contract(name: str, tmp_path: Path) -> None:
    reader = readers.load(name)
    assert reader.DESCRIPTION
    assert reader.recognises(tmp_path) is False
    assert reader.recognises(write(tmp_path / "notes.md", "nothing")) is False


def test_unknown_format_absent_file_and_unrecognised(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Did you mean karpathy"):
        read(tmp_path, format="karpaty")
    write(tmp_path / "captions.csv", "image,caption\n")
    with pytest.raises(DataError, match=r"Did you mean .*captions\.csv"):
        read(tmp_path / "caption.csv")
    with pytest.raises(DataError, match="sidecar: "):
        read(write(tmp_path / "notes.md", "nothing"))
    with pytest.raises(RecipeError, match="source is missing"):
        list(readers.read(DataSettings()))


# --- sidecar


def test_sidecar(tmp_path: Path) -> None:
    image(tmp_path / "train/b.jpg")
    write(tmp_path / "train/b.txt", "\ufeffone\n\ntwo\r\n")
    image(tmp_path / "val/deep/a.PNG")
    write(tmp_path / "val/deep/a.PNG.txt", "three")
    image(tmp_path / "z.webp")
    write(tmp_path / "lost.txt", "no image")
    write(tmp_path / "README.txt", "about")
    image(tmp_path / ".hidden/h.jpg")
    image(tmp_path / "w.jpg")
    write(tmp_path / "w.txt", "größer", "latin-1")
    assert readers.recognise(tmp_path) == "sidecar"
    samples, problems = read(tmp_path)
    found = {sample.id: (sample.captions, sample.split) for sample in samples}
    assert found == {
        "train/b.jpg": (("one", "two"), "train"),
        "val/deep/a.PNG": (("three",), "val"),
        "z.webp": ((), ""),
    }
    assert [(p.id, p.reason) for p in problems] == [("w.jpg", "bad_row"), ("lost.txt", "caption_without_image")]
    with pytest.raises(DataError, match="not a folder"):
        read(tmp_path / "lost.txt", format="sidecar")


# --- karpathy and coco


def karpathy(folder: Path) -> Path:
    image(folder / "val2014/c.jpg")
    one = [{"raw": "one"}]
    images = [
        {
            "filepath": "val2014",
            "filename": "c.jpg",
            "cocoid": 391895,
            "split": "restval",
            "sentences": one,
        },
        {"filename": "d.jpg", "split": "test", "sentences": [{"raw": "two"}, {"raw": "three"}], "label": "Port"},
        {"split": "test"},
    ]
    return write(folder / "dataset_coco.json", json.dumps({"dataset": "coco", "images": images}))


def test_karpathy(tmp_path: Path) -> None:
    path = karpathy(tmp_path)
    assert readers.recognise(path) == readers.recognise(tmp_path) == "karpathy"
    samples, problems = read(path)
    assert samples == read(tmp_path)[0]
    assert samples[0] == Sample(id="391895", image=str(tmp_path / "val2014/c.jpg"), captions=("one",), split="restval")
    assert samples[1].captions == ("two", "three")
    assert samples[1].extra == {"label": "Port"}
    assert [problem.reason for problem in problems] == ["bad_row"]
    with pytest.raises(DataError, match="no list of images"):
        read(write(tmp_path / "dataset_x.json", '{"sentences": 1}'), format="karpathy")
    with pytest.raises(DataError, match="not JSON"):
        read(write(tmp_path / "dataset_x.json", '{"sentences": '))


def test_coco(tmp_path: Path) -> None:
    for split, number in (("train", 1), ("val", 9)):
        image(tmp_path / f"{split}2017/{number:012d}.jpg")
        content = {
            "info": {},
            "images": [
                {"id": number, "file_name": f"{number:012d}.jpg", "license": 3},
                {"id": number + 1, "file_name": "x"},
            ],
            "annotations": [
                {"image_id": number, "id": 5, "caption": "one"},
                {"image_id": 77, "id": 6, "caption": "strange"},
                {"image_id": number, "id": 7, "caption": "two"},
                {"id": 8},
            ],
        }
        write(tmp_path / f"annotations/captions_{split}2017.json", json.dumps(content))
    write(tmp_path / "annotations/instances_val2017.json", "{}")
    assert readers.recognise(tmp_path) == "coco"
    samples, problems = read(tmp_path)
    assert [(s.id, s.split, s.captions) for s in samples] == [
        ("1", "train", ("one", "two")), ("2", "train", ()), ("9", "val", ("one", "two")), ("10", "val", ())
    ]  # fmt: skip
    assert samples[2].image == str(tmp_path / "val2017/000000000009.jpg")
    assert samples[0].extra == {"license": 3}
    assert [problem.reason for problem in problems] == ["caption_without_image", "bad_row"] * 2
    one = tmp_path / "annotations/captions_val2017.json"
    assert readers.recognise(one) == "coco"
    assert [sample.id for sample in read(one)[0]] == ["9", "10"]


# --- imagefolder


def test_imagefolder_with_a_table_in_each_split(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        image(tmp_path / split / "a.jpg")
        write(tmp_path / split / "metadata.csv", "file_name,text\na.jpg,caption\n")
    assert readers.recognise(tmp_path) == "imagefolder"
    samples, _ = read(tmp_path)
    assert [(s.id, s.split, s.captions) for s in samples] == [
        ("train/a.jpg", "train", ("caption",)), ("validation/a.jpg", "val", ("caption",))
    ]  # fmt: skip


def test_imagefolder_with_one_table(tmp_path: Path) -> None:
    image(tmp_path / "test/b.jpg")
    rows = [{"file_name": "test/b.jpg", "text": "b"}, {"file_name": "c.jpg", "text": "c"}]
    write(tmp_path / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    samples, _ = read(tmp_path)
    assert [(sample.id, sample.split) for sample in samples] == [("test/b.jpg", "test"), ("c.jpg", "")]
    with pytest.raises(DataError, match="sidecar"):
        read(tmp_path / "test", format="imagefolder")


# --- real data


@needs_real
def test_the_real_tables() -> None:
    samples, problems = read(REAL / "tables/food_recipes_300.csv")
    assert (len(samples), problems) == (300, [])
    assert samples[0].captions == ("Crispy Salt and Pepper Potatoes",)
    assert samples[0].id == "crispy-salt-and-pepper-potatoes-dan-kluger"
    samples, problems = read(REAL / "tables/risc_val_500.csv")
    assert (len(samples), problems) == (500, [])
    assert (samples[0].id, samples[0].split, samples[0].extra["source"]) == ("NWPU_7597.jpg", "val", "NWPU")
    samples, problems = read(REAL / "tables/obss_submission_200.csv")
    assert (len(samples), problems) == (200, [])
    assert samples[0].id == "100000"


@needs_real
def test_the_real_karpathy_files() -> None:
    for name, number in (("flickr8k", 7091), ("rsicd", 4094)):
        assert readers.recognise(REAL / name) == "karpathy"
        samples, problems = read(REAL / name)
        assert (len(samples), problems) == (number, [])
        assert all(len(sample.captions) == 5 for sample in samples)
        assert all(Path(sample.image).is_file() for sample in samples[:50])
