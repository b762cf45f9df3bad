"""evaluate(): baselines, counts, files; and reading what people score."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from cutline.cli.score import score as score_command
from cutline.cli.tables import scores_table
from cutline.core.errors import ScoreError
from cutline.core.records import Prediction, Sample
from cutline.data.dataset import write_table
from cutline.data.prepare.table_rows import table_row
from cutline.images.open import ImageFacts
from cutline.metrics.baselines import CONSTANT, CONTEXT, HUMAN, SHUFFLED
from cutline.metrics.evaluation import Evaluation, evaluate
from cutline.metrics.files.predictions import read_predictions
from cutline.metrics.files.references import read_references
from cutline.metrics.settings import ScoreSettings

REFERENCES = {f"{n}.jpg": [f"{what} on a table", f"a {what}"] for n, what in enumerate(["cup", "dog", "pen", "hat"])}
PREDICTIONS = {f"{n}.jpg": f"a {what}" for n, what in enumerate(["cup", "dog", "pen", "cat"])}
SETTINGS = ScoreSettings(metrics=("bleu", "exact_match", "length"), resamples=50)


def test_baselines_stand_beside_the_scores() -> None:
    found = evaluate(
        PREDICTIONS,
        REFERENCES,
        training_captions=[["a dog"]] * 4 + [[f"{word} stands there"] for word in "uvwxyz"],
        contexts=dict.fromkeys(REFERENCES, "a cup"),
        settings=SETTINGS,
    )
    assert found.scores["exact_match"].value == 0.75
    assert found.baselines[CONSTANT]["exact_match"].value == 0.25  # "a dog"
    assert found.baselines[SHUFFLED]["exact_match"].value == 0
    assert found.baselines[CONTEXT]["exact_match"].value == 0.25
    assert found.baselines[HUMAN]["bleu1"].signature.split("|")[5] == "len:closest"
    assert "refs:1" in found.baselines[HUMAN]["bleu1"].signature
    assert all("length" not in scores for scores in found.baselines.values())
    assert "a dog" in found.notes[CONSTANT]
    tested = found.differences[SHUFFLED]["exact_match"]
    assert (tested.a, tested.value_a, tested.value_b) == (SHUFFLED, 0, 0.75)
    assert tested.low <= tested.gain == 0.75 <= tested.high
    assert (tested.wins, tested.ties, tested.losses) == (3, 1, 0)
    assert set(found.differences) == {CONSTANT, SHUFFLED, CONTEXT}  # the human one has other references
    assert "length" not in found.differences[CONSTANT]
    assert scores_table(found).row_count == len(found.scores)
    assert "95 % interval" in [column.header for column in scores_table(found).columns]
    narrow = io.StringIO()
    Console(width=80, file=narrow).print(scores_table(found))
    assert all(len(line) <= 80 for line in narrow.getvalue().splitlines())
    assert "…" not in narrow.getvalue()  # labels wrap, and no number is cut
    for scores in (found.scores, *found.baselines.values()):
        assert scores["exact_match"].info.format(scores["exact_match"].value, 4) in narrow.getvalue()


def test_what_an_oracle_helped_to_write_says_so_with_every_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = {"context_sources": {"person": {"value": "Ann", "source": "oracle (caption)"}}}
    samples = [
        Sample(id=name, image=f"images/{name}", captions=tuple(texts), split="test", extra=sources)
        for name, texts in REFERENCES.items()
    ]
    facts = ImageFacts(sha256="0" * 64, width=1, height=1, suffix=".jpg")
    write_table(tmp_path, (table_row(sample, facts, sample.id) for sample in samples))
    (tmp_path / "dataset.json").write_text('{"format_version": 1}')
    (tmp_path / "made.jsonl").write_text(
        "".join(json.dumps({"id": k, "caption": v}) + "\n" for k, v in PREDICTIONS.items())
    )
    score_command(tmp_path / "made.jsonl", tmp_path, metrics="bleu4,length", resamples=10, as_json=True)
    said = capsys.readouterr()
    scores = json.loads(said.out)["scores"]
    assert len(scores) >= 2
    assert all(row["signature"].endswith("|context:oracle") for row in scores)
    assert "oracle scores" in said.err
    assert "oracle" not in evaluate(PREDICTIONS, REFERENCES, settings=SETTINGS).scores["bleu1"].signature


def test_counts_and_warnings() -> None:
    predictions = {
        "0.jpg": Prediction(id="0.jpg", caption="a cup", finished=True),
        "1.jpg": Prediction(id="1.jpg", caption="", finished=True),
        "2.jpg": Prediction(id="2.jpg", caption="a a", finished=False),
    }
    found = evaluate(predictions, REFERENCES, settings=SETTINGS, allow_missing=True)
    assert found.counts == {"images": 4, "references": 8, "empty": 2, "failed": 0, "missing": 1, "unfinished": 1}
    assert any("1 of 4 images have no prediction" in text for text in found.warnings)
    together = evaluate(PREDICTIONS, REFERENCES, groups=dict.fromkeys(REFERENCES, "g"), settings=SETTINGS)
    assert SHUFFLED not in together.baselines
    assert any("One group" in text for text in together.warnings)


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    found = evaluate(PREDICTIONS, REFERENCES, training_captions=["a dog", "a tree"], settings=SETTINGS)
    found.save(tmp_path)
    loaded = Evaluation.load(tmp_path)
    assert loaded.scores == found.scores
    assert loaded.differences == found.differences
    assert loaded.to_json() == found.to_json()
    assert loaded.references == found.references
    rows = [json.loads(line) for line in (tmp_path / "per_image.jsonl").read_text().splitlines()]
    assert rows[3]["id"] == "3.jpg"
    assert rows[3]["scores"]["exact_match"] == 0
    with pytest.raises(ScoreError, match="no scores"):
        Evaluation.load(tmp_path / "elsewhere")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


PREDICTION_FILES = {
    "rows.jsonl": '{"id": "1", "caption": "a dog"}\n{"id": "2", "caption": null}\n{"id": "3", "capt',
    "coco.json": '[{"image_id": 1, "caption": "a dog"}, {"image_id": 2, "caption": null}]',
    "object.json": '{"1": "a dog", "2": null}',
    "lists.json": '{"1": ["a dog"], "2": null}',
}


@pytest.mark.parametrize("name", list(PREDICTION_FILES))
def test_predictions_of_every_format(tmp_path: Path, name: str) -> None:
    assert read_predictions(write(tmp_path / name, PREDICTION_FILES[name])) == {"1": "a dog", "2": None}


def test_predictions_as_tables_and_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = '\ufeffImage_ID,Caption\n1,a dog\n2,"two, three"\n'
    assert read_predictions(write(tmp_path / "a.csv", table)) == {"1": "a dog", "2": "two, three"}
    assert read_predictions(write(tmp_path / "a.tsv", "path\ttext\n1\ta dog\n")) == {"1": "a dog"}
    record = Prediction(id="1", status="failed", error="truncated")
    lines = json.dumps(record.to_json()) + "\n"
    assert read_predictions(write(tmp_path / "p.jsonl", lines)) == {"1": record}
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    assert read_predictions("-") == {"1": record}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"image_id": 1, "caption": "a"}, {"image_id": 1, "caption": "b"}]', "1 ids more than once: 1"),
        ('{"id": "1"}\n', "no column"),
        ('{"id": "1", "caption": "x"}\nnot json\n{"id": "2", "caption": "y"}\n', "line 2 is not JSON"),
        ('[{"image_id": 1, "caption": ["a", 2]}]', "not text"),
        ('{"1": {"words": 3}}', "no caption in"),
        ('{"1": "a", "1": "b"}', "stands twice"),
        ("[1, 2]", "not a row"),
        ("[]", "no predictions"),
        ("hello", "no column"),
        ("{broken", "not JSON"),
    ],
)
def test_wrong_prediction_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ScoreError, match=message):
        read_predictions(write(tmp_path / "wrong", text))


def test_absent_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ScoreError, match="no file"):
        read_predictions(tmp_path / "absent")
    with pytest.raises(ScoreError, match="is a folder"):
        read_predictions(tmp_path)


KARPATHY = {
    "images": [
        {"filename": "x.jpg", "imgid": 7, "split": "val", "sentences": [{"raw": "a dog"}, {"raw": "the dog"}]},
        {"filename": "y.jpg", "imgid": 8, "split": "train", "sentences": [{"raw": "a cat"}]},
    ]
}
COCO = {
    "images": [{"id": 7, "file_name": "x.jpg"}],
    "annotations": [{"image_id": 7, "caption": "a dog"}, {"image_id": 7, "caption": "the dog"}],
}


@pytest.mark.parametrize("name", ["x.jpg", "x", "7"])
@pytest.mark.parametrize("content", [KARPATHY, COCO])
def test_an_image_is_found_by_any_of_its_names(tmp_path: Path, content: dict[str, object], name: str) -> None:
    found = read_references(write(tmp_path / "r.json", json.dumps(content)), {name: "a dog"})
    assert found.captions == {name: ("a dog", "the dog")}


def test_splits(tmp_path: Path) -> None:
    path = write(tmp_path / "k.json", json.dumps(KARPATHY))
    found = read_references(path, {"x.jpg": "a"})
    assert found.training == [("a cat",)]
    assert "split val" in found.note
    assert list(read_references(path, {}, split="train").captions) == ["y.jpg"]
    with pytest.raises(ScoreError, match=r"no images in split test\. Splits there: val, train"):
        read_references(path, {}, split="test")


@pytest.mark.parametrize(
    "text",
    [
        "image,caption\nx.jpg,a dog\nx.jpg,the dog\n",
        "image,caption_1,caption_2\nx.jpg,a dog,the dog\n",
        '{"x.jpg": ["a dog", "the dog"]}',
        '{"id": "x.jpg", "captions": ["a dog", "the dog"]}\n',
    ],
)
def test_references_as_rows(tmp_path: Path, text: str) -> None:
    found = read_references(write(tmp_path / "r", text), {"x.jpg": "a"})
    assert found.captions == {"x.jpg": ("a dog", "the dog")}


def test_wrong_reference_files_are_named(tmp_path: Path) -> None:
    for text, message in (
        ('{"images": [{"filename": "x"}]}', "no sentences"),
        ("a,b\n1,2\n", "no column"),
        ('{"x": []}', "no reference captions"),
    ):
        with pytest.raises(ScoreError, match=message):
            read_references(write(tmp_path / "r", text), {})
