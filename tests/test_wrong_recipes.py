"""Wrong recipes: one line that says what is wrong, one that says what to do, exit code 2, and nothing else happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cutline.cli import main as cli
from cutline.data.dataset import Dataset
from cutline.families.open import find
from tests.conftest import drawing

RECIPE = """\
[data]
source = "good"

[model]
checkpoint = "model"

[train]
max_steps = 1
batch_size = 2
val_max_new_tokens = 3

[generate]
max_new_tokens = 3

[score]
metrics = ["cider"]
resamples = 10
"""

SPLITS = ("train", "train", "train", "train", "val", "test")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with recipes, sources and checkpoints, most of them wrong."""
    folder: Path = tmp_path_factory.mktemp("wrong")

    def source(name: str, row: str, header: str = "image,caption,split", pictures: int = 12) -> None:
        (folder / name / "images").mkdir(parents=True)
        for number in range(pictures):
            drawing(number, (32, 32)).save(folder / name / f"images/{number}.png")
        rows = [row.format(n=n, split=SPLITS[n % 6], half="train" if n < 8 else "test") for n in range(12)]
        (folder / name / "captions.csv").write_text("\n".join([header, *rows]) + "\n")

    source("good", "{n}.png,a thing {n},{split}")
    source("no_train", "{n}.png,a thing {n},test")
    source("no_val", "{n}.png,a thing {n},{half}")
    source("no_captions", "{n}.png,,{split}")
    source("no_pictures", "{n}.png,a thing {n},{split}", pictures=0)
    source("odd_columns", "{n}.png,a thing {n},{split}", header="a,b,c")
    (folder / "nothing").mkdir()
    (folder / "no_config").mkdir()
    find("cnn_rnn").tiny().save(folder / "model")
    find("vision_encoder_decoder").tiny().save(folder / "other")
    recipes = {
        "good": RECIPE,
        "unknown_key": RECIPE.replace("batch_size", "batchsize"),
        "unknown_section": RECIPE.replace("[train]", "[trian]"),
        "no_toml": RECIPE.replace('"good"', "good"),
        "no_model": RECIPE.replace('[model]\ncheckpoint = "model"\n', ""),
        "no_source": RECIPE.replace('source = "good"', ""),
        "both": RECIPE + '\n[model.new]\nencoder = "x"\n',
        "neither": RECIPE.replace('checkpoint = "model"', ""),
        "new_without_family": RECIPE.replace('checkpoint = "model"', "new = {vgg = 11}"),
        "new_wrong": RECIPE.replace('checkpoint = "model"', 'family = "cnn_rnn"\nnew = {vgg = 11, hiden = 8}'),
        "new_impossible": RECIPE.replace('checkpoint = "model"', 'family = "qwen2_5_vl"\nnew = {a = 1}'),
    }
    for name, text in recipes.items():
        (folder / f"{name}.toml").write_text(text)
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


#: Name → recipe and options, what the problem says, what the remedy says.
WRONG: dict[str, tuple[str, str, str]] = {
    "unknown key": ("unknown_key", "unknown key train.batchsize", "Did you mean train.batch_size?"),
    "unknown section": ("unknown_section", "unknown section trian", "Did you mean train?"),
    "not TOML": ("no_toml", "no_toml.toml is not valid TOML: .*line 2", "Fix that line"),
    "no recipe": ("goood", "There is no recipe goood.toml", "Did you mean good.toml?"),
    "no [model]": ("no_model", r"the section \[model\] is missing", r"Add \[model\]"),
    "no source": ("no_source", "data.source is missing", "Name a file or folder with captioned images"),
    "wrong type": ("good --set train.batch_size=x", 'train.batch_size = "x": must be a whole number', "per device"),
    "wrong choice": ("good --set train.lr_scheduler_type=cosin", "must be one of 'cosine'", 'Did you mean "cosine"?'),
    "out of range": ("good --set train.lr=-1", "train.lr = -1: must be above 0", "peak learning rate"),
    "malformed --set": ("good --set train.lr", "--set train.lr is not of the form", "For example: --set train.ep"),
    "unknown stage": ("good --only prepare,trian", "There is no stage 'trian'", "Stages: prepare, bootstrap, train,"),
    "caption before training": ("good --only caption", "holds no prepared dataset", "--only prepare,"),
    "training what is quantised": ("good --set model.quantize=nf4", "a quantised part can only be", "Fix the recipe"),
    "source absent": ("good --set data.source=goood", "There is no goood", "Did you mean good?"),
    "source without data": ("good --set data.source=nothing", "in no known format", "sidecar: a folder"),
    "unknown format": ("good --set data.format=csv", "There is no format 'csv'", "Known readers: coco,"),
    "wrong column": ("good --set data.columns.caption=captoin", "has no column 'captoin'", "Did you mean 'caption'?"),
    "unknown columns": ("good --set data.source=odd_columns", "image's file name. Columns: a, b, c", "data.columns"),
    "no images": ("good --set data.source=no_pictures", "Every row would be lost: 12 missing", r"\[data\] images"),
    "images elsewhere": ("good --set data.images=nowhere", "There is no folder nowhere", r"\[data\] images"),
    "no captions": ("good --set data.source=no_captions", "Every row would be lost: 12 no_caption", "caption right"),
    "no train split": ("good --set data.source=no_train", "has no split 'train' to train on; it has test", "split"),
    "no val split": ("good --set data.source=no_val", "no split 'val' to choose the best checkpoint by", "Add val"),
    "no such split": ("good --set generate.split=dev", "has no split 'dev'", r"train \(8\), val \(2\), test \(2\)"),
    "dataset in its source": ("good --set data.dataset=good/prepared", "overlap", "another folder"),
    "unknown family": ("good --set model.family=cnn_rmn", "There is no family 'cnn_rmn'", "Did you mean cnn_rnn?"),
    "another family": (
        "good --set model.family=vision_encoder_decoder", "but model is of the family cnn_rnn", "Leave .* out",
    ),
    "checkpoint absent": ("good --set model.checkpoint=./modle", "There is no checkpoint folder ./modle", "Check the"),
    "checkpoint unknown": ("good --set model.checkpoint=no/such", "no/such is neither a folder here nor", "connection"),
    "checkpoint without config": ("good --set model.checkpoint=no_config", "no_config has no config.json", "folder"),
    "checkpoint and new": ("both", r"\[model\] has both checkpoint and new", r"Fix \[model\]"),
    "neither checkpoint nor new": ("neither", r"\[model\] needs checkpoint = … .* or a \[model.new\] section", ""),
    "new without family": ("new_without_family", r"\[model.new\] needs \[model\] family", ""),
    "unknown key of new": ("new_wrong", r"\[model.new\]: unknown key hiden", "Did you mean hidden?"),
    "family without new": ("new_impossible", "qwen2_5_vl models can't be built from scratch", "checkpoint = …"),
    "image size for a fixed model": ("good --set model.image.min_pixels=900", "has a fixed input size", "size"),
    "unknown part": ("good --set train.parts.visoin=frozen", "cnn_rnn has no such part", "Did you mean vision?"),
    "unknown policy": ("good --set train.parts.vision=frosen", 'none of "frozen", "full", "lora"', "train.parts"),
    "too many layers": ("good --set train.parts.vision=last:99", "vision has 2 layers", 'at most "last:2"'),
    "no layers": ("good --set train.parts.head=last:1", "has no numbered layers", '"full" or "frozen"'),
    "all frozen": (
        "good --set train.parts={vision='frozen',bridge='frozen',text='frozen',head='frozen'}",
        "Every part is frozen; there is nothing to train", "full",
    ),
    "several training metrics": ("good --set train.metric=bleu", "bleu has several scores", "Choose one of them"),
    "unknown training metric": ("good --set train.metric=cidre", "There is no metric cidre", "Did you mean cider?"),
    "metric without its file": ("good --set score.metrics=['chair']", "needs the objects that", "instances"),
    "metric without its checkpoint": (
        "good --set score.metrics=['fgd'] --set score.fgd.model=./nothing", "nothing could not be opened", "fgd.model",
    ),
    "metric without its program": (
        "good --set score.metrics=['spice'] --set score.spice.folder=nothing", "spice needs spice-1.0.jar", "or leave",
    ),
    "unknown metric": ("good --set score.metrics=['blue4']", "no metric blue4. Did you mean bleu4?", "metrics"),
    "ablation of nothing": ("good --set ablation={}", "the prompt has no context", "{context}"),
    "no such device": ("good --set model.device=cuda:99", "The device 'cuda:99' can't be used here", "--device cpu"),
    "run folder is a file": ("good -o good.toml", "good.toml is a file", "--out"),
}  # fmt: skip


def refused(text: str, problem: str, remedy: str) -> None:
    """The last two lines are the problem and the remedy, and there is no other complaint."""
    lines = text.splitlines()
    assert "Traceback" not in text
    assert [line for line in lines if line.startswith("error: ")] == lines[-2:-1], text
    assert re.search(problem, lines[-2]), lines[-2]
    assert lines[-1].startswith("       ")
    assert re.search(remedy, lines[-1]), lines[-1]
    assert lines[-2].endswith((".", "?"))


@pytest.mark.parametrize("name", WRONG)
def test_wrong_recipes(name, place, monkeypatch, capsys):
    arguments, problem, remedy = WRONG[name]
    recipe, *options = arguments.split(" ")
    folder = name.replace(" ", "-")
    monkeypatch.chdir(place)
    out = [] if "-o" in options else ["-o", f"runs/{folder}"]
    monkeypatch.setattr(sys, "argv", ["cutline", "run", f"{recipe}.toml", *out, *options])
    before = files(place)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    refused(printed.err, problem, remedy)
    ours = ("runs", f"runs/{folder}")
    assert {path for path in files(place) - before if not path.startswith(f"runs/{folder}/")} <= set(ours)
    # no model was made, and nothing is marked as trained
    assert not (place / "runs" / folder / "model").exists()


def test_the_good_recipe_is_good_until_an_image_is_lost(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", ["cutline", "run", "good.toml", "-o", "runs/fine"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    assert "CIDEr-D" in capsys.readouterr().out
    assert (place / "runs/fine/report.html").is_file()

    for name in ("stages/caption.json", "predictions.jsonl"):
        (place / "runs/fine" / name).unlink()
    test = Dataset.open(place / "runs/fine/dataset").split("test")
    Path(test[0].image).write_bytes(b"")
    for more in ([], ["--only", "caption"]):
        monkeypatch.setattr(sys, "argv", ["cutline", "run", "good.toml", "-o", "runs/fine", *more])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 1
        last = capsys.readouterr().err.splitlines()[-1]
        assert last == "1 of 2 images have no caption; runs/fine/predictions.jsonl says why"


def test_through_a_real_process(place):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cutline.cli.main", "run", *arguments],
            cwd=place,
            capture_output=True,
            text=True,
            timeout=120,
        )

    done = run("unknown_key.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: unknown_key.toml: unknown key train.batchsize.\n       Did you mean train.batch_size?\n"
    )
    assert not (place / "runs/unknown_key").exists()
    done = run("unknown_key.toml", "--debug")
    assert "Traceback" in done.stderr
    assert "RecipeError" in done.stderr
    done = run("good.toml", "--set", "data.source=no_val", "-o", "runs/process")
    assert (done.returncode, done.stdout) == (2, "")
    refused(done.stderr, "no split 'val'", "Add val")
