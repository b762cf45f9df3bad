"""Whole runs: every recipe rehearsed, killed and gone on with, changed and passed over."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cutline.caption.files import read
from cutline.core import config as recipe
from cutline.core import jsonl
from cutline.core.errors import RecipeError
from cutline.families.open import open_checkpoint
from cutline.images import shapes
from cutline.metrics.baselines import CONTEXT
from cutline.metrics.evaluation import Evaluation
from cutline.metrics.settings import DEFAULT
from cutline.run import run
from cutline.run.recipe import Recipe
from cutline.run.run import open_run

ROOT = Path(__file__).parent.parent
RECIPES = [*sorted((ROOT / "recipes").glob("*.toml")), ROOT / "cutline/cli/demo.toml"]
#: Each recipe as it is, and the one variant that has a model of another kind (Flan-T5 behind BLIP-2).
AS_THEY_ARE = [pytest.param(path, [], id=path.stem) for path in RECIPES]
OTHER = pytest.param(ROOT / "recipes/goodnews-blip2.toml", ["variant=8x24GB"], id="goodnews-blip2-8x24GB")

#: The usual metrics; METEOR's index would take longer to build than all the tests here.
WITHOUT_METEOR = [name for name in DEFAULT if name != "meteor"]
SMALL: dict[str, dict[str, Any]] = {
    "model": {
        "family": "vision_encoder_decoder",
        "new": {"vision_layers": 1, "vision_width": 16, "text_layers": 1, "text_width": 16, "heads": 2},
    },
    "train": {"max_steps": 6, "eval_steps": 2, "batch_size": 4, "logging_steps": 1, "val_max_new_tokens": 6},
    "generate": {"max_new_tokens": 8, "batch_size": 2},
    "score": {"resamples": 50, "metrics": WITHOUT_METEOR},
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return shapes.draw(tmp_path_factory.mktemp("shapes"), train=16, val=6, test=24)


def small(source, **changes) -> Recipe:
    table = {"data": {"source": str(source)}} | {name: dict(section) for name, section in SMALL.items()}
    for section, values in changes.items():
        table[section] = table[section] | values
    return recipe.parse(table, Recipe)


@pytest.mark.parametrize(("path", "changes"), [*AS_THEY_ARE, OTHER])
def test_every_recipe_is_rehearsed_with_tiny(path, changes, tmp_path, monkeypatch):
    """From the data to the report, without its data, its checkpoint, a network or a GPU."""
    monkeypatch.chdir(tmp_path)
    loaded = recipe.load(path, Recipe, changes)
    rehearsed = run.Run(loaded, tmp_path / "run", tiny=True)
    evaluation = rehearsed()
    if loaded.for_retrieval:
        assert evaluation is not None
        assert {"tr_recall_at_1", "ir_recall_at_10"} <= evaluation.scores.keys()
        assert set(evaluation.baselines) >= {"chance"}
        page = (tmp_path / "run/report.html").read_text()
        assert "recall@1, image → text" in page
        assert "What is missing" not in page
        assert page.count("data:image/jpeg") >= 4
        if loaded.train:
            log = list(jsonl.read(tmp_path / "run/train/log.jsonl"))
            assert 0 <= log[-1]["val_mean_recall"] <= 1
            assert "embed" in open_checkpoint(tmp_path / "run", task="embed").tasks
        if loaded.bootstrap:
            kinds = {kind for sample in rehearsed.dataset() for kind in sample.extra["captions_from"]}
            assert kinds == {"human", "web", "synthetic"}
            assert "kept" in (tmp_path / "run/bootstrap/report.html").read_text()
            assert rehearsed() is not None  # finished, and passed over
        return
    assert evaluation is not None
    assert evaluation.counts["images"] == 12
    assert evaluation.counts["failed"] == 0
    assert set(evaluation.baselines) >= {"one constant caption", "captions of another image"}
    page = (tmp_path / "run/report.html").read_text()
    assert "cider" in page.lower()
    facts = json.loads((tmp_path / "run/run.json").read_text())
    assert facts["versions"]["torch"]
    assert facts["data"]["fingerprint"]
    assert recipe.load(tmp_path / "run/recipe.toml", Recipe).model == loaded.model


@pytest.mark.parametrize("path", RECIPES[:-1], ids=lambda path: path.stem)
def test_every_recipe_says_how_it_is_started_and_what_was_measured(path):
    header = path.read_text().partition("\nabout =")[0]
    assert f"run recipes/{path.name}" in header
    assert "Hardware:" in header
    assert "Measured:" in header


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_variant_of_every_recipe_is_a_recipe(path):
    variants = recipe.read_toml(path).get("variants", {})
    chosen = [recipe.load(path, Recipe, [f"variant={name}"]) for name in variants]
    assert len({loaded.model_dump_json() for loaded in chosen}) == len(variants)


def test_news_recipe_puts_the_article_into_the_prompt(tmp_path, monkeypatch):
    """The recipe's own steps on a small GoodNews: context comes from the article, and never from the caption."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "news/resized").mkdir(parents=True)
    articles: dict[str, Any] = {}
    splits: dict[str, str] = {}
    for number, split in enumerate(("train", "train", "val", "test")):
        address = f"https://www.nytimes.com/2012/01/0{number + 1}/world/europe/harbor.html"
        articles[f"a{number}"] = {
            "images": {"0": f"Ann Lee at harbor {number} on 5 May 2009."},
            "headline": {"main": "Summit in Oslo"},
            "article_url": address,
        }
        splits[f"a{number}_0"] = split
        drawn = shapes.picture(shapes.scenes()[number], 64, random.Random(number))
        drawn.save(tmp_path / f"news/resized/a{number}_0.jpg")
    (tmp_path / "news/captioning_dataset.json").write_text(json.dumps(articles))
    (tmp_path / "news/img_splits.json").write_text(json.dumps(splits))
    overrides = ["data.source=news", "data.steps.context.model=''"]  # without spaCy's model, which isn't here
    loaded = recipe.load(ROOT / "recipes/goodnews-blip2.toml", Recipe, overrides)
    rehearsed = run.Run(loaded, tmp_path / "run", tiny=True)
    rehearsed(("prepare",))
    samples = list(rehearsed.dataset())
    lines = [one.context["context"] for one in samples]
    assert sorted(lines) == [f"[world/europe | 2012-01-0{day}]" for day in (1, 2, 3, 4)]
    family: Any = rehearsed.open_family()
    batch = family.collate(samples[:1], with_targets=False)
    prompt = family.tokenizer.decode(batch["input_ids"][0], skip_special_tokens=True)
    assert prompt.strip() == f"context: {lines[0]} a photo of"


def test_finished_and_unchanged_is_passed_over_and_a_change_redoes_what_follows(drawn, tmp_path, messages):
    folder = tmp_path / "run"
    first = run.Run(small(drawn), folder)()
    weights = (folder / "model/model.safetensors").stat().st_mtime_ns
    rows = (folder / "predictions.jsonl").read_bytes()
    messages()
    again = run.Run(small(drawn), folder)()
    said = messages()
    assert all(f"{stage}: already done" in said for stage in ("train", "caption", "score"))
    assert {name: score.value for name, score in again.scores.items()} == {
        name: score.value for name, score in first.scores.items()
    }
    # another way of generating: the training stays, the old captions are kept aside
    run.Run(small(drawn, generate={"num_beams": 2}), folder)()
    assert (folder / "model/model.safetensors").stat().st_mtime_ns == weights
    assert [path.read_bytes() for path in folder.glob("superseded/caption-*/predictions.jsonl")] == [rows]
    # another training: all is done again
    run.Run(small(drawn, train={"lr": 0.02}, generate={"num_beams": 2}), folder)()
    assert (folder / "model/model.safetensors").stat().st_mtime_ns != weights
    assert list(folder.glob("superseded/train-*/model/model.safetensors"))
    # scored three times, and each was a look at the test split
    assert json.loads((folder / "run.json").read_text())["looks_at_test"] == 3


def start(recipe_path: Path, folder: Path) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-m", "cutline.cli.main", "run", str(recipe_path), "--out", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)


def kill_when(process: subprocess.Popen[bytes], happened) -> None:
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if happened():
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return
        time.sleep(0.002)
    raise AssertionError(f"the run ended before it was killed: {process.communicate()[1].decode()[-2000:]}")


def finish(process: subprocess.Popen[bytes]) -> None:
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said.decode()[-2000:]


def test_killed_in_training_and_in_captioning_ends_as_an_unbroken_run(drawn, tmp_path):
    """SIGKILL, the real program, and the same predictions and scores in the end."""
    path = tmp_path / "small.toml"
    path.write_text(recipe.to_toml(small(drawn, train={"max_steps": 12}, generate={"batch_size": 1})))
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    finish(start(path, unbroken))
    kill_when(start(path, broken), lambda: (broken / "train/checkpoints/checkpoint-4").exists())
    assert not (broken / "model").exists()
    predictions = broken / "predictions.jsonl"
    kill_when(start(path, broken), lambda: predictions.exists() and predictions.read_bytes().count(b"\n") >= 3)
    assert 3 <= predictions.read_bytes().count(b"\n") < 24
    finish(start(path, broken))
    assert read(predictions) == read(unbroken / "predictions.jsonl")
    assert len(list(jsonl.read(predictions))) == 24
    scores = [Evaluation.load(folder).scores for folder in (unbroken, broken)]
    assert scores[0] == scores[1]


def test_zero_shot_needs_no_training(drawn, tmp_path):
    trained = run.Run(small(drawn), tmp_path / "trained")
    trained(("prepare", "train"))
    data = {"source": str(drawn), "columns": {"context": ["split"]}}
    table = {"data": data, "model": {"checkpoint": str(tmp_path / "trained/model")}}
    loaded = recipe.parse(table | {"generate": SMALL["generate"]}, Recipe)
    evaluation = run.Run(loaded, tmp_path / "zero")()
    assert evaluation is not None
    assert evaluation.counts["images"] == 24
    assert evaluation.notes[CONTEXT]  # the text that may stand in the prompt is a baseline, too
    assert evaluation.differences[CONTEXT]["cider"].b == "predictions"
    assert not (tmp_path / "zero/model").exists()


def test_demo_recipe_is_the_one_that_the_package_ships():
    from cutline.cli.demo import demo_recipe

    made = demo_recipe(Path("somewhere"))
    assert made.data.source == "somewhere"
    assert made.train is not None


def test_captions_and_retrieval_have_each_their_own_stages(drawn, tmp_path):
    captions = small(drawn)
    with pytest.raises(RecipeError, match="retrieve: this recipe is for captions"):
        run.Run(captions, tmp_path / "captions")(("retrieve",))
    table = {"data": {"source": str(drawn)}, "model": {"family": "clip", "checkpoint": "openai/clip"}, "retrieve": {}}
    recall = recipe.parse(table, Recipe)
    assert recall.for_retrieval
    with pytest.raises(RecipeError, match="score: this recipe is for retrieval"):
        run.Run(recall, tmp_path / "recall", tiny=True)(("prepare", "score"))
    assert not captions.for_retrieval


def test_a_run_for_retrieval_is_passed_over_or_done_again(drawn, tmp_path, messages):
    table = {
        "data": {"source": str(drawn)},
        "model": {"family": "clip", "checkpoint": "openai/clip"},
        "retrieve": {"rerank": 4},
    }
    first = run.Run(recipe.parse(table, Recipe), tmp_path, tiny=True)()
    again = run.Run(recipe.parse(table, Recipe), tmp_path, tiny=True)()
    assert first is not None
    assert again is not None
    assert "retrieve: already done" in messages()
    assert {name: one.value for name, one in again.scores.items()} == {n: o.value for n, o in first.scores.items()}
    run.Run(recipe.parse(table | {"retrieve": {"rerank": 3}}, Recipe), tmp_path, tiny=True)()
    assert "the old outputs are in" in messages()
    assert len(list((tmp_path / "superseded").iterdir())) == 1
    assert json.loads((tmp_path / "run.json").read_text())["looks_at_test"] == 2


def test_a_tiny_run_continues_as_tiny(tmp_path, monkeypatch, messages):
    """Its own recipe.toml names a checkpoint that only a full run would need."""
    monkeypatch.chdir(tmp_path)
    Path("r.toml").write_text(
        '[data]\nsource = "absent"\n[model]\nfamily = "vision_encoder_decoder"\ncheckpoint = "no/such"\n'
        "[train]\nbatch_size = 8\n[score]\nmetrics = ['cider']\n"
    )
    first = open_run("r.toml", Path("T"), tiny=True)()
    assert json.loads(Path("T/run.json").read_text())["tiny"] is True
    messages()
    continued = open_run("T/recipe.toml")
    assert continued.tiny
    again = continued()
    assert first is not None
    assert again is not None
    assert first.scores == again.scores
    said = messages()
    assert all(f"{stage}: already done" in said for stage in ("train", "caption", "score"))
    assert not Path("T/superseded").exists()


def test_a_tiny_run_and_a_full_one_never_share_a_folder(drawn, tmp_path):
    full, tiny = tmp_path / "full", tmp_path / "tiny"
    run.Run(small(drawn), full)(("prepare",))
    run.Run(small(drawn), tiny, tiny=True)(("prepare",))
    with pytest.raises(RecipeError, match="holds a full run") as refused:
        run.Run(small(drawn), full, tiny=True)
    assert "--out" in refused.value.remedy
    with pytest.raises(RecipeError, match="holds a run made with --tiny") as refused:
        run.Run(small(drawn), tiny)
    assert "--tiny" in refused.value.remedy
    with pytest.raises(RecipeError, match="holds a full run"):
        open_run(full / "recipe.toml", tiny=True)
    assert not open_run(full / "recipe.toml").tiny


def test_the_dataset_is_opened_once_while_it_stays_as_it_is(drawn, tmp_path):
    whole = run.Run(small(drawn), tmp_path)
    whole(("prepare",))
    first = whole.dataset()
    whole(("prepare",))
    assert whole.dataset() is first
    marker = tmp_path / "dataset/dataset.json"
    os.utime(marker, ns=(0, marker.stat().st_mtime_ns + 1))  # as if it were prepared again
    assert whole.dataset() is not first
    assert whole.dataset().fingerprint == first.fingerprint


def test_default_split(drawn, tmp_path):
    whole = run.Run(small(drawn), tmp_path)
    whole(("prepare",))
    dataset = whole.dataset()
    assert dataset.default_split() == "test"
    assert dataset.default_split("train", "val") == "train"
    assert dataset.default_split("restval", "val") == "val"
    assert dataset.split("train").default_split() == "train"
