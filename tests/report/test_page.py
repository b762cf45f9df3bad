"""The report: one file that needs nothing else, says everything that is known, and trusts no text from outside."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cutline.core.errors import DataError
from cutline.core.records import Prediction
from cutline.data.dataset import Dataset
from cutline.metrics.evaluation import Evaluation
from cutline.report.page import write
from cutline.report.words import interval, number
from tests.report import drawn_run


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text without style."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._styling = False
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._styling = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._styling = self._styling and tag != "style"

    def handle_data(self, data: str) -> None:
        if not self._styling:
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_run.make(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(finished, tmp_path / finished.name))


@pytest.fixture(scope="module")
def page(finished: Path) -> Page:
    return Page(write(finished).read_text(encoding="utf-8"))


def read(run: Path) -> Page:
    return Page(write(run).read_text(encoding="utf-8"))


def test_loads_nothing_from_outside(page: Page, finished: Path) -> None:
    loading = [value for _, held in page.tags for name, value in held.items() if name in ("src", "srcset", "data")]
    assert loading
    assert all(value.startswith("data:image/jpeg;base64,") for value in loading)
    assert not page.all("script") + page.all("link") + page.all("iframe") + page.all("object")
    links = [value for _, held in page.tags for name, value in held.items() if name.endswith("href")]
    assert all(value.startswith("#") for value in links)
    html = (finished / "report.html").read_text(encoding="utf-8")
    assert "@import" not in html
    assert "url(http" not in html
    assert "default-src 'none'" in html


def test_text_from_outside_stays_text(page: Page) -> None:
    assert not page.all("script")
    assert not [held for held in page.all("img") if "onerror" in held]
    assert '<script>alert("caption")</script><img src=x onerror=alert(1)> & "quoted" {{ 7 * 7 }}' in page.text
    assert any(held["alt"] == drawn_run.HOSTILE for held in page.all("img"))


def test_hostile_names_references_and_settings_stay_text(run: Path) -> None:
    recipe = (run / "recipe.toml").read_text(encoding="utf-8").replace("Drawn shapes.", "</pre><script>1</script>")
    (run / "recipe.toml").write_text(recipe, encoding="utf-8")
    rows = [json.loads(line) for line in (run / "per_image.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["references"] = ["</figure><script>2</script>", "half a pair: \ud83d", "x" * 5000]
    (run / "per_image.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    renamed = run.rename(run.with_name("<script>3<"))
    page = read(renamed)
    assert not page.all("script")
    assert "<script>3<" in page.text
    assert "(5,000 characters)" in page.text


def test_every_score_interval_and_baseline_is_there(page: Page, finished: Path) -> None:
    evaluation = Evaluation.load(finished)
    every = [*evaluation.scores.values(), *(s for found in evaluation.baselines.values() for s in found.values())]
    assert len(every) > 20
    for score in every:
        assert " ".join(number(score.info, score.value).split()) in page.text
        assert " ".join(interval(score).split()) in page.text
    for score in evaluation.scores.values():
        assert score.signature in page.text
        assert f"{score.info.label} {score.info.meaning}" in page.text
    for name in evaluation.baselines:
        assert name in page.text
    for text in [*evaluation.warnings, *evaluation.notes.values()]:
        assert " ".join(text.split()) in page.text


def test_the_summary(page: Page, finished: Path) -> None:
    cider = Evaluation.load(finished).scores["cider"]
    assert f"On 24 test images the captions reach CIDEr-D {cider.value:.3f}" in page.text
    assert f"{cider.low:.3f}–{cider.high:.3f}" in page.text
    assert "for one constant caption" in page.text
    assert "1 image failed, 1 caption is empty and 1 caption was cut off at the length limit." in page.text


def test_failed_images_are_named_with_their_reason(page: Page, finished: Path) -> None:
    sample = Dataset.open(finished / "dataset").split("test")[0]
    assert f"{sample.id} {drawn_run.FAILED}" in page.text


def test_how_it_was_made(page: Page) -> None:
    for text in ("cutline run shapes.toml", "0123abc", "2.13.0", "1 min 15 s", 'metric = "cider"', "5 min 00 s"):
        assert text in page.text
    assert "vision frozen 1,234 0" in page.text
    assert "test 24 24" in page.text  # images and captions of a split
    assert "chosen: 1.234" in page.text
    assert "step 40" in page.text


def test_examples_have_alternative_texts_and_sizes(page: Page) -> None:
    images = page.all("img")
    assert len(images) == 21
    assert all(held["alt"] and held["width"] == "48" for held in images)


def test_ids_in_the_page_are_unique(page: Page) -> None:
    ids = [held["id"] for _, held in page.tags if "id" in held]
    assert len(ids) == len(set(ids))


def test_the_same_run_gives_the_same_bytes(finished: Path) -> None:
    first = write(finished).read_bytes()
    assert write(finished).read_bytes() == first


def test_large_photographs_stay_small_in_the_page(run: Path) -> None:
    for sample in Dataset.open(run / "dataset").split("test"):
        drawn_run.noise(Path(sample.image), 640, 480)
    page = read(run)
    assert all(held["width"] == "320" and held["height"] == "240" for held in page.all("img"))
    assert (run / "report.html").stat().st_size < 3_000_000


def test_a_picture_that_does_not_open_is_said_in_its_place(run: Path) -> None:
    samples = list(Dataset.open(run / "dataset").split("test"))
    for sample in samples[:12]:
        Path(sample.image).write_bytes(b"<html>not found</html>")
    for sample in samples[12:]:
        Path(sample.image).unlink()
    page = read(run)
    assert not page.all("img")
    assert "No picture: not an image: " in page.text
    assert "No picture: missing: there is no such file" in page.text


def test_no_dataset(run: Path) -> None:
    shutil.rmtree(run / "dataset")
    text = read(run).text
    assert "The photographs can’t be shown. There is no dataset" in text
    assert "No picture: not in the dataset" in text


def test_stopped_before_scoring(run: Path) -> None:
    for name in ("scores.json", "per_image.jsonl", "stages/score.json"):
        (run / name).unlink()
    text = read(run).text
    assert "23 images captioned, 1 failed; not scored." in text
    assert "The captions have not been scored." in text
    assert "Drawn at random" in text
    assert drawn_run.FAILED in text


def test_stopped_while_captioning(run: Path) -> None:
    lines = (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (run / "predictions.jsonl").write_text("".join(lines[:5]) + lines[5][:20], encoding="utf-8")
    mark = json.loads((run / "stages/caption.json").read_text())
    (run / "stages/caption.json").write_text(json.dumps(mark | {"finished": False}))
    for name in ("scores.json", "per_image.jsonl", "stages/score.json"):
        (run / name).unlink()
    assert "Captioning is not finished: 5 of 24 images so far." in read(run).text


def test_stopped_while_training(run: Path) -> None:
    for name in ("scores.json", "per_image.jsonl", "predictions.jsonl", "stages/score.json", "stages/caption.json"):
        (run / name).unlink()
    (run / "stages/train.json").write_text('{"fingerprint": "f", "finished": false, "seconds": 9.0}')
    page = read(run)
    assert "Training stopped at step 60, before its end." in page.text
    assert "No image has been captioned." in page.text
    assert "There are no scores." in page.text
    assert page.all("svg")


def test_nothing_but_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(drawn_run.RECIPE, encoding="utf-8")
    text = read(tmp_path).text
    assert "Training has not begun." in text
    assert "This run has no captions yet." in text


def test_without_training(run: Path) -> None:
    shutil.rmtree(run / "train")
    (run / "stages/train.json").unlink()
    (run / "recipe.toml").write_text('[model]\ncheckpoint = "blip"\n', encoding="utf-8")
    page = read(run)
    assert "The recipe has no training: the checkpoint was used as it is." in page.text
    assert "What is missing" not in page.text
    assert not page.all("svg")


def test_damaged_files_are_said(run: Path) -> None:
    for name in ("scores.json", "run.json", "stages/train.json", "recipe.toml"):
        (run / name).write_text("{ oh", encoding="utf-8")
    text = read(run).text
    for name in ("scores.json", "run.json", "train.json", "recipe.toml"):
        assert f"{name} can’t be read: " in text


def test_a_loss_that_is_not_a_number_is_left_out(run: Path) -> None:
    (run / "train/log.jsonl").write_text(
        '{"step": 1, "loss": NaN}\n{"step": 2, "loss": Infinity}\n{"step": 3, "loss": 1.5}\n', encoding="utf-8"
    )
    html = write(run).read_text(encoding="utf-8")
    assert "nan" not in html[html.index("<svg") : html.index("</svg>")].lower()


def test_few_images_are_all_shown(tmp_path: Path) -> None:
    text = read(drawn_run.make(tmp_path, images=6)).text
    assert "Every image Ordered by CIDEr-D, best first." in text
    assert "Drawn at random" not in text


def test_an_image_without_prediction_is_named(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    gone = Prediction.from_json(rows.pop())
    (run / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert f"{gone.id} no prediction" in read(run).text


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no files of a run"):
        write(tmp_path)
    with pytest.raises(DataError, match="There is no run folder"):
        write(tmp_path / "absent")
    assert not (tmp_path / "report.html").exists()


def test_the_panel_is_shown_as_it_changed_and_why_a_guard_stopped(run: Path) -> None:
    """A stopped training's page says what the model said on the way, at steps spread over it."""
    names = Dataset.open(run / "dataset").split("val").column("id")[:2]
    rows = [
        {"step": step, "fault": None, "blank": "", "captions": dict.fromkeys(names, f"<b>said at {step}</b>")}
        for step in range(10, 210, 10)
    ]
    (run / "train/panel.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts = {"step": 200, "guard": "same", "reason": "captions are empty", "remedy": "Do.", "last_good_step": 150}
    (run / "train/stopped.json").write_text(json.dumps(facts))
    page = Page(write(run).read_text(encoding="utf-8"))
    assert page.text.count("<b>said at 10</b>") == 2
    assert page.text.count("<b>said at 200</b>") == 2
    assert page.text.count("<b>said at") == 12
    assert "Stopped by a guard at step 200" in page.text
    assert "The weights of step 150 are kept" in page.text
