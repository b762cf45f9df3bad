"""Files of predictions and references: read as ``prepare`` reads them, each with the one right result."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cutline.cli.compare import compare
from cutline.cli.score import score
from cutline.core.errors import ScoreError
from cutline.core.records import Sample
from cutline.data.dataset import write_table
from cutline.data.prepare.table_rows import table_row
from cutline.images.open import ImageFacts
from cutline.metrics.files.matching import match, shortenings
from cutline.metrics.files.predictions import read_predictions
from cutline.metrics.files.references import read_references
from cutline.metrics.files.tables import chosen_columns

REFS = {"a.jpg": ("a dog", "one dog"), "b.jpg": ("two cats",)}
ROWS = [("a.jpg", "a dog"), ("a.jpg", "one dog"), ("b.jpg", "two cats")]


def write(path: Path, content: object) -> Path:
    data = content if isinstance(content, str) else json.dumps(content)
    path.write_text(data, encoding="utf-8")
    return path


def table(mark: str, column: str = "caption") -> str:
    return "\n".join(mark.join(row) for row in [("image", column), *ROWS]) + "\n"


@pytest.mark.parametrize("mark", [",", ";", "|", "\t"])
@pytest.mark.parametrize("column", ["caption", "sentence", "Sentences", "raw"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_references_have_every_form_of_a_table(tmp_path: Path, mark: str, column: str, encoding: str) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(table(mark, column).encode(encoding))
    assert read_references(path, {"a.jpg": "x"}).captions == REFS
    packed = tmp_path / "r.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_references(packed, {"a.jpg": "x"}).captions == REFS


def test_predictions_have_every_form_of_a_table(tmp_path: Path) -> None:
    wanted = {"a.jpg": "a dog", "b.jpg": 'two "cats", asleep'}
    pq.write_table(pa.table({"image": list(wanted), "prediction": list(wanted.values())}), tmp_path / "p.parquet")
    assert read_predictions(tmp_path / "p.parquet") == wanted
    text = 'image;prediction\na.jpg;a dog\nb.jpg;"two ""cats"", asleep"\n'
    (tmp_path / "p.csv").write_bytes(text.encode("utf-16"))
    assert read_predictions(tmp_path / "p.csv") == wanted
    (tmp_path / "p.json.gz").write_bytes(gzip.compress(json.dumps(wanted).encode()))
    assert read_predictions(tmp_path / "p.json.gz") == wanted


@pytest.mark.parametrize(
    "name", ["prediction", "predicted", "generated", "generation", "hypothesis", "Generated_Caption"]
)
def test_what_a_model_wrote_goes_before_the_caption_and_is_never_a_reference(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "both.csv", f"image_id,caption,{name}\na.jpg,a dog,a cat\n")
    with caplog.at_level(logging.INFO, "cutline"):
        assert read_predictions(path) == {"a.jpg": "a cat"}
    assert f"from the column {name}, not from caption" in caplog.text
    assert read_references(path, {"a.jpg": "x"}).captions == {"a.jpg": ("a dog",)}
    only = write(tmp_path / "only.csv", f"image_id,{name}\na.jpg,a cat\n")
    with pytest.raises(ScoreError, match="no column is known to hold captions"):
        read_references(only, {"a.jpg": "x"})


def test_two_columns_that_could_be_predictions_are_refused_by_name_until_one_is_chosen(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", "image,prediction,generated\na.jpg,one,two\n")
    with pytest.raises(ScoreError, match="any of the columns prediction, generated"):
        read_predictions(path)
    assert read_predictions(path, chosen_columns(["prediction=generated"])) == {"a.jpg": "two"}
    with pytest.raises(ScoreError, match=r"prediction=other: .* no such column"):
        read_predictions(path, chosen_columns(["prediction=other"]))
    with pytest.raises(ScoreError, match="no 'captoin'"):
        chosen_columns(["captoin=x"])


def test_references_take_the_same_column_as_preparing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "r.csv", "image_id,title,caption,description\n1,IMG 1,a dog,by X\n")
    with caplog.at_level(logging.INFO, "cutline"):
        assert read_references(path, {"1": "x"}).captions == {"1": ("a dog",)}
    assert "captions are read from caption, not from title, description" in caplog.text
    chosen = chosen_columns(["caption=title", "caption=description"])
    assert read_references(path, {"1": "x"}, columns=chosen).captions == {"1": ("IMG 1", "by X")}
    with pytest.raises(ScoreError, match="caption=none: there is no such column"):
        read_references(path, {"1": "x"}, columns=chosen_columns(["caption=none"]))


@pytest.mark.parametrize("names", ["caption,caption.1,caption.2", "raw,raw_1,raw_2", "caption_2,caption_10,caption"])
def test_a_numbered_column_does_not_push_out_the_bare_one(tmp_path: Path, names: str) -> None:
    path = write(tmp_path / "r.csv", f"image,{names}\na.jpg,x,y,z\n")
    assert sorted(read_references(path, {"a.jpg": "x"}).captions["a.jpg"]) == ["x", "y", "z"]


@pytest.mark.parametrize(
    "content",
    [
        {"40": [{"image_id": 40, "id": 3, "caption": "a dog"}]},
        {"40": [{"caption": "a dog"}]},
        {"40": {"captions": ["a dog"], "split": "test"}},
        {"40": "a dog"},
        [{"image_id": 40, "captions": [{"caption": "a dog"}]}],
        [{"image_id": 40, "sentences": [{"raw": "a dog"}]}],
        {"annotations": [{"image_id": 40, "id": 1, "caption": "a dog"}], "images": [{"id": 40}]},
        {"images": [{"filename": "40.jpg", "split": "test", "sentences": ["a dog"]}]},
        'filename,raw\n40.jpg,"[""a dog""]"\n',
        "image_id,captions\n40,['a dog']\n",
    ],
)
def test_captions_in_objects_and_lists_are_read_as_texts(tmp_path: Path, content: object) -> None:
    assert read_references(write(tmp_path / "r", content), {"40": "x"}).captions == {"40": ("a dog",)}


@pytest.mark.parametrize(
    "content",
    [
        '[{"image_id": 40, "caption": null}, {"image_id": 41, "caption": "a dog"}]',
        '[{"image_id": 40, "caption": NaN}, {"image_id": 41, "caption": "a dog"}]',
        '[{"image_id": 40, "caption": ""}, {"image_id": 41, "caption": "a dog"}]',
        '{"40": [null], "41": ["a dog", null, ""]}',
        "image_id,caption\n40,NaN\n41,a dog\n",
        "image_id,caption\n40,\n41,a dog\n",
        '{"images": [], "annotations": [{"image_id": 40, "caption": null}, {"image_id": 41, "caption": "a dog"}]}',
    ],
)
def test_nothing_is_no_caption(tmp_path: Path, content: str) -> None:
    found = read_references(write(tmp_path / "r", content), {"41": "x"})
    assert found.captions == {"41": ("a dog",)}
    assert "1 images without a reference caption" in found.note


def test_a_missing_prediction_is_none_and_an_empty_one_is_empty(tmp_path: Path) -> None:
    text = '[{"id": 1, "caption": null}, {"id": 2, "caption": NaN}, {"id": 3, "caption": ""}, {"id": 4, "caption": []}]'
    assert read_predictions(write(tmp_path / "p.json", text)) == {"1": None, "2": None, "3": "", "4": None}
    assert read_predictions(write(tmp_path / "p.csv", "id,caption\n1,NaN\n2,None\n")) == {"1": None, "2": "None"}


def test_several_captions_of_one_image_are_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = write(tmp_path / "p.json", {"a.jpg": ["a dog", "a hound"], "b.jpg": ["two cats"]})
    assert read_predictions(predictions) == {"a.jpg": ["a dog", "a hound"], "b.jpg": "two cats"}
    references = write(tmp_path / "r.json", REFS)
    score(predictions, references, metrics="exact_match", resamples=0, as_json=True)
    assert json.loads(capsys.readouterr().out)["scores"][0]["value"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"1": "a dog", "1": "a cat"}', "key '1' stands twice"),
        ('{"id": "1", "id": "2", "caption": "a"}\n', "stands twice"),
        ("image_id,caption\n1,a dog, running\n", "row 2: 3 cells under 2 columns"),
        ("[" * 100_000, "not JSON"),
        ('{"1": [[["a"], 3]]}', "not text"),
    ],
)
def test_what_is_broken_is_an_error_in_both_kinds_of_file(tmp_path: Path, content: str, message: str) -> None:
    path = write(tmp_path / "f", content)
    with pytest.raises(ScoreError, match=message):
        read_predictions(path)
    with pytest.raises(ScoreError, match=message):
        read_references(path, {"1": "x"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [{"id": 1}], "annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}]}, "no image_id or caption"),
        ({"annotations": [{"id": 1, "image": 40, "caption": "x"}]}, "no image_id or caption"),
        ({"images": ["40.jpg"]}, "no sentences or annotations"),
        ({"images": [{"filename": "40.jpg", "sentences": None}]}, "no reference captions"),
        ([["40", "a"]], "not a row"),
        ([], "no reference captions"),
        ('"hello"', "no column"),
        ("", "is empty"),
    ],
)
def test_files_without_references_are_named_and_raise_nothing_else(
    tmp_path: Path, content: object, message: str
) -> None:
    with pytest.raises(ScoreError, match=message):
        read_references(write(tmp_path / "r", content), {"40": "x"})


def test_names_are_shortened_step_by_step() -> None:
    assert shortenings("val2014/COCO_000000000040.jpg") == (
        "val2014/COCO_000000000040.jpg", "COCO_000000000040.jpg", "COCO_000000000040", "",
    )  # fmt: skip
    for name in ("40", "40.0", "000000000040", "x/0040.jpg"):
        assert shortenings(name)[-1] == "40"
    assert shortenings("v1.25")[2] == "v1.25"


@pytest.mark.parametrize(
    "predicted", ["40", "40.0", "000000000040", "val2014/C_40.jpg", "/far/val2014/C_40.jpg", "C_40"]
)
def test_an_image_is_found_by_a_shortened_name_while_it_is_unique(tmp_path: Path, predicted: str) -> None:
    content = {
        "images": [{"id": 40, "file_name": "C_40.jpg"}, {"id": 41, "file_name": "C_41.jpg"}],
        "annotations": [{"image_id": 40, "caption": "a dog"}, {"image_id": 41, "caption": "a cat"}],
    }
    path = write(tmp_path / "captions_val2014.json", content)
    found = read_references(path, {predicted: "x"})
    assert found.captions == {predicted: ("a dog",), "41": ("a cat",)}
    assert not found.extra


def test_a_shortened_name_of_two_images_is_an_error_that_names_both(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", "image_path,caption,split\ntrain/0.jpg,a dog,train\ntest/0.jpg,a cat,test\n")
    for name in ("0.jpg", "0"):
        with pytest.raises(ScoreError, match=rf"{name} could be for train/0\.jpg or for test/0\.jpg"):
            read_references(path, {name: "x"})
    assert read_references(path, {"0.jpg": "x"}, split="test").captions == {"0.jpg": ("a cat",)}
    whole = read_references(path, {"train/0.jpg": "x", "test/0.jpg": "y"})
    assert whole.captions == {"train/0.jpg": ("a dog",), "test/0.jpg": ("a cat",)}
    with pytest.raises(ScoreError, match=r"train/0\.jpg and test/0\.jpg are both for 0\.jpg"):
        match(["train/0.jpg", "test/0.jpg"], [["0.jpg"]], "r")
    karpathy = {
        "images": [
            {"filename": "0.jpg", "filepath": part, "split": part, "sentences": [{"raw": part}]}
            for part in ("train", "test")
        ]
    }
    path = write(tmp_path / "k.json", karpathy)
    with pytest.raises(ScoreError, match=r"train/0\.jpg or for test/0\.jpg"):
        read_references(path, {"0.jpg": "x"})


def test_predictions_name_the_files_of_a_prepared_dataset(tmp_path: Path) -> None:
    facts = ImageFacts(sha256="0" * 64, width=1, height=1, suffix=".jpg")
    sample = Sample(id="7", image="", captions=("a dog",), split="test")
    write_table(tmp_path, [table_row(sample, facts, "photos/x.jpg")])
    (tmp_path / "dataset.json").write_text('{"format_version": 1}')
    for name in ("7", "photos/x.jpg", "x.jpg", "x"):
        assert read_references(tmp_path, {name: "y"}).captions == {name: ("a dog",)}


def test_images_without_endings_are_found_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/40.jpg").touch()
    path = write(tmp_path / "r.json", {"40": ["a dog"]})
    assert read_references(path, {"40": "x"}, images=tmp_path / "photos").images == {"40": tmp_path / "photos/40.jpg"}


def test_extra_predictions_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    references = write(tmp_path / "r.json", REFS)
    first = write(tmp_path / "p.json", {"a.jpg": "a dog", "b.jpg": "two cats", "c.jpg": "x"})
    with pytest.raises(ScoreError, match=r"1 of 3 predictions have no reference: c\.jpg"):
        score(first, references, metrics="exact_match", resamples=0)
    score(first, references, metrics="exact_match", resamples=0, as_json=True, allow_extra=True)
    said = capsys.readouterr()
    assert json.loads(said.out)["scores"][0]["value"] == 1
    assert "1 predictions have no reference" in said.err
    second = write(tmp_path / "q.csv", "image;text;generated\na;a dog;a cat\nphotos/b.jpg;two cats;two cats\n")
    compare([first, second], references, metrics="exact_match", resamples=10, as_json=True, allow_extra=True)
    row = json.loads(capsys.readouterr().out)["differences"][0]
    assert (row["value_a"], row["value_b"]) == (1, 0.5)
    compare(
        [first, second], references, metrics="exact_match", resamples=10, as_json=True, allow_extra=True,
        column=["prediction=text"],
    )  # fmt: skip
