"""Run folders for the tests: small drawn pictures, captions made of them, and the files that a run leaves."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from cutline.core.files import write_atomically
from cutline.core.records import Prediction
from cutline.core.run_folder import RunFolder
from cutline.data.dataset import Dataset
from cutline.data.prepare.prepare import prepare
from cutline.data.settings import DataSettings
from cutline.images import shapes
from cutline.metrics.evaluation import evaluate
from cutline.metrics.settings import DEFAULT, ScoreSettings

RECIPE = """about = "Drawn shapes."
seed = 0
[data]
source = "shapes"
[train]
metric = "cider"
epochs = 3
"""

#: Would run, load or break something if the page took it for more than text.
HOSTILE = '<script>alert("caption")</script><img src=x onerror=alert(1)> & "quoted" {{ 7 * 7 }}'

FAILED = "truncated: JPEG: the end is missing"


def make(folder: Path, images: int = 24) -> Path:
    """A finished run over ``images`` test pictures: one failed, one said something hostile, one said nothing."""
    run = folder / "a run"
    shapes.draw(folder / "shapes", train=12, val=4, test=images)
    prepare(DataSettings(source=str(folder / "shapes")), run / "dataset", workers=1)
    marks = RunFolder(run)
    write_atomically(run / "recipe.toml", RECIPE)
    marks.note(versions={"cutline": "0.1.0", "torch": "2.13.0"}, seed=0, git="0123abc", command=["run", "shapes.toml"])
    train_log(run)
    for stage, facts in (
        ("prepare", {}),
        (
            "train",
            {"steps": 60, "best_step": 40, "parts": {"vision": _part("frozen", 1234), "text": _part("full", 99)}},
        ),
        ("caption", {"split": "test"}),
        ("score", {"split": "test"}),
    ):
        marks.begin(stage, "f" * 16, ())
        marks.finish(stage, 75.0, **facts)
    caption_and_score(run)
    return run


def train_log(run: Path) -> None:
    rows: list[dict[str, float]] = [{"step": step, "epoch": step / 20, "loss": 30 / step} for step in range(5, 61, 5)]
    for step, cider in ((20, 0.5), (40, 1.2345), (60, 1.1)):
        rows.append({"step": step, "epoch": step / 20, "val_loss": 20 / step, "val_cider": cider})
    write_atomically(run / "train/log.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def caption_and_score(run: Path) -> None:
    dataset = Dataset.open(run / "dataset")
    samples = list(dataset.split("test"))
    made = {}
    for number, sample in enumerate(samples):
        text = sample.captions[0] if number % 3 else "a red circle above a blue square"
        made[sample.id] = Prediction(id=sample.id, caption=text, tokens=9, finished=number != 5)
    ids = [sample.id for sample in samples]
    made[ids[0]] = Prediction(id=ids[0], status="failed", error=FAILED)
    made[ids[1]] = Prediction(id=ids[1], caption=HOSTILE, tokens=9, finished=True)
    made[ids[2]] = Prediction(id=ids[2], caption="", tokens=1, finished=True)
    lines = "".join(json.dumps(row.to_json()) + "\n" for row in made.values())
    write_atomically(run / "predictions.jsonl", lines)
    evaluate(
        made,
        {sample.id: list(sample.captions) for sample in samples},
        training_captions=dataset.split("train").column("captions"),
        settings=ScoreSettings(resamples=50, metrics=tuple(name for name in DEFAULT if name != "meteor")),
    ).save(run)


def noise(path: Path, width: int, height: int) -> None:
    """A photograph that hardly compresses."""
    Image.effect_noise((width, height), 90).convert("RGB").save(path, quality=95)


def _part(policy: str, parameters: int) -> dict[str, object]:
    return {"policy": policy, "parameters": parameters, "trainable": parameters if policy == "full" else 0}
