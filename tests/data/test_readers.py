"""Every reader: what it recognises, what it reads, and what it says when something is wrong."""

from __future__ import annotations

import ast
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_images import encode, marker

from cutline.data import readers
from cutline.data.problem import Problem
from cutline.data.settings import DataSettings
from cutline.errors import DataError, RecipeError
from cutline.records import Sample

REAL = Path(__file__).parents[2].parent / "shared/data"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the shared real data is not beside this repository")


def read(source: Path, **settings: Any) -> tuple[list[Sample], list[Problem]]:
    items = list(readers.read(DataSettings.model_validate({"source": str(source), **settings})))
    return [item for item in items if isinstance(item, Sample)], [item for item in items if isinstance(item, Problem)]


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(marker(8, 8), "PNG"))
    return path


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def test_listing_imports_no_reader() -> None:
    code = "import sys; from cutline.data import readers; print(readers.names()); print(sorted(readers.descriptions()))"
    code += "; print([name for name in sys.modules if name.startswith('cutline.data.readers.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, described, imported = map(ast.literal_eval, done.stdout.splitlines())
    assert names == described == ["coco", "imagefolder", "karpathy", "sidecar", "table"]
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


# --- tables


def test_a_row_per_image_with_several_caption_columns(tmp_path: Path) -> None:
    image(tmp_path / "images/a.jpg")
    text = "filename,caption_2,caption_1,split,place\na.jpg,two,one,valid,here\nb.jpg,,only,test,\n"
    samples, problems = read(write(tmp_path / "captions.csv", text))
    assert not problems
    assert samples[0] == Sample(
        id="a.jpg",
        image=str(tmp_path / "images/a.jpg"),
        captions=("one", "two"),
        split="valid",
        extra={"place": "here"},
    )
    assert samples[1].captions == ("only", "")  # the empty cell is counted later, not dropped here
    assert samples[1].image == str(tmp_path / "b.jpg")


def test_a_row_per_caption_is_merged_by_image(tmp_path: Path) -> None:
    rows = "image,id,caption,split\na.jpg,1,first,train\nb.jpg,2,other,train\na.jpg,3,second,train\n"
    samples, problems = read(write(tmp_path / "c.csv", rows))
    # the id column counts captions, so it names no sample
    assert [(sample.id, sample.captions) for sample in samples] == [
        ("b.jpg", ("other",)),
        ("a.jpg", ("first", "second")),
    ]
    assert not problems


def test_rows_of_one_image_in_different_splits_are_reported(tmp_path: Path) -> None:
    rows = "image,caption,split\na.jpg,first,train\na.jpg,second,test\n"
    samples, problems = read(write(tmp_path / "c.csv", rows))
    assert len(samples) == 1
    assert [problem.reason for problem in problems] == ["split_conflict"]


def test_chosen_columns_and_context(tmp_path: Path) -> None:
    rows = "key,pic,words,headline,article_id,rest\n7,a.jpg,text,News,art1,x\n"
    columns = {"id": "key", "image": "pic", "caption": ["words"], "context": ["headline"], "extra": []}
    samples, _ = read(write(tmp_path / "c.csv", rows), columns=columns)
    assert samples[0] == Sample(
        id="7", image=str(tmp_path / "a.jpg"), captions=("text",), group="art1", context={"headline": "News"}
    )


def test_wrong_columns_are_errors_with_the_known_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "c.csv", "image,caption\na.jpg,x\n")
    with pytest.raises(RecipeError, match=r"columns\.caption.*Did you mean 'caption'\? Columns: image, caption"):
        read(path, columns={"caption": "captoin"})
    with pytest.raises(RecipeError, match="gives the answer away"):
        read(path, columns={"context": ["caption"]})
    with pytest.raises(RecipeError, match=r"file name\. Columns: a, b"):
        read(write(tmp_path / "d.csv", "a,b\n1,2\n"))
    with pytest.raises(RecipeError, match="hold captions"):
        read(write(tmp_path / "e.csv", "image,b\n1,2\n"))
    samples, _ = read(tmp_path / "e.csv", captions_required=False)
    assert samples[0].captions == ()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_encodings_quotes_and_line_breaks(tmp_path: Path, encoding: str) -> None:
    rows = 'image,caption\r\na.jpg,"Eine ""große"" Brücke,\r\nim Regen"\r\n\r\nb.jpg,x\r\n'
    samples, problems = read(write(tmp_path / "c.csv", rows, encoding))
    assert not problems
    assert samples[0].captions == ('Eine "große" Brücke,\r\nim Regen',)
    assert samples[1].captions == ("x",)


def test_huge_cells_and_the_limit_of_the_host(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    samples, _ = read(write(tmp_path / "c.csv", f"image,caption,article\na.jpg,x,{'word ' * 100_000}\n"))
    assert len(samples[0].extra["article"]) == 500_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(("name", "mark"), [("c.tsv", "\t"), ("c.csv", ";"), ("c.csv", "| "), ("captions.txt", ",")])
def test_delimiters(tmp_path: Path, name: str, mark: str) -> None:
    path = write(tmp_path / name, f"image_name{mark}comment_number{mark}comment\na.jpg{mark}0{mark}a caption\n")
    samples, _ = read(path, format="table")
    assert samples[0].captions == ("a caption",)
    assert samples[0].extra == {"comment_number": "0"}


def test_bad_rows_are_listed_and_the_rest_is_read(tmp_path: Path) -> None:
    rows = 'image,caption\na.jpg,x\nb.jpg,y,z\n,nothing\nc.jpg,"open" quote\nd.jpg,w\n'
    samples, problems = read(write(tmp_path / "c.csv", rows))
    assert [sample.id for sample in samples] == ["a.jpg", "d.jpg"]
    assert [problem.id for problem in problems] == ["c.csv, row 3", "c.csv, row 4", "c.csv, row 5"]
    assert {problem.reason for problem in problems} == {"bad_row"}
    samples, problems = read(write(tmp_path / "d.csv", 'image,caption\na.jpg,x\nb.jpg,"never closed\nc.jpg,y\n'))
    assert [sample.id for sample in samples] == ["a.jpg"]
    assert [problem.reason for problem in problems] == ["bad_row"]


def test_latin_1_and_an_empty_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not UTF-8"):
        read(write(tmp_path / "c.csv", "image,caption\na.jpg,größer\n", "latin-1"))
    with pytest.raises(DataError, match="is empty"):
        read(write(tmp_path / "d.csv", ""))


def test_json_lines_json_lists_and_parquet(tmp_path: Path) -> None:
    rows = [{"image": "a.jpg", "captions": ["one", "two"], "n": 1}, {"image": "b.jpg", "captions": ["three"]}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    jsonl = write(tmp_path / "c.jsonl", "\ufeff" + lines + "{broken\n[1]\n")
    plain = write(tmp_path / "c.json", json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    for path in (jsonl, plain, tmp_path / "c.parquet"):
        samples, problems = read(path)
        assert [sample.captions for sample in samples] == [("one", "two"), ("three",)], path
        assert samples[0].extra == {"n": 1}
        assert len(problems) == (2 if path == jsonl else 0)


def test_lists_written_into_cells(tmp_path: Path) -> None:
    rows = 'filename,raw\na.jpg,"[""one"", ""two""]"\nb.jpg,"[\'three\']"\nc.jpg,[a dog]\n'
    samples, _ = read(write(tmp_path / "c.csv", rows))
    assert [sample.captions for sample in samples] == [("one", "two"), ("three",), ("[a dog]",)]


def test_image_names_without_ending_with_backslashes_or_lost_folders(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.PNG", "sub/c.webp"):
        image(tmp_path / "pictures" / name)
    rows = "image,caption\na,x\nb,x\nold\\sub\\c.webp,x\nother/sub/c.webp,x\n"
    samples, _ = read(write(tmp_path / "c.csv", rows), images=str(tmp_path / "pictures"))
    found = [str(Path(sample.image).relative_to(tmp_path / "pictures")) for sample in samples]
    # the fourth would be the third's picture: better missing than wrong
    assert found == ["a.jpg", "b.PNG", "sub/c.webp", "other/sub/c.webp"]
    with pytest.raises(DataError, match="There is no folder"):
        read(tmp_path / "c.csv", images=str(tmp_path / "nowhere"))


def test_a_folder_with_one_table(tmp_path: Path) -> None:
    image(tmp_path / "images/a.jpg")
    write(tmp_path / "captions.csv", "image,caption\na.jpg,x\n")
    assert readers.recognise(tmp_path) == "table"
    assert read(tmp_path)[0][0].image == str(tmp_path / "images/a.jpg")


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
