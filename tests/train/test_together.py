"""Two processes that train one model come to the same as one with the same batch. This starts real processes, each of
which imports everything, so it takes a while."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from cutline.core import jsonl
from cutline.core.config import load
from cutline.images import shapes
from cutline.run.recipe import Recipe
from cutline.run.run import Run

RECIPE = """
[data]
source = "{source}"

[model]
family = "vision_encoder_decoder"
device = "cpu"

[model.new]
vision_layers = 1
vision_width = 16
text_layers = 1
text_width = 16
heads = 2

[train]
parts = {{ vision = "frozen", text = "lora" }}
lora = {{ dropout = 0.0 }}
batch_size = {batch_size}
optimizer = "sgd"
lr = 0.5
warmup_steps = 0
max_steps = 7
eval_steps = 3
logging_steps = 1
val_max_new_tokens = 6

[generate]
max_new_tokens = 6

[score]
metrics = ["cider"]
resamples = 10
"""


def test_two_processes_are_one_with_the_same_batch(tmp_path):
    source = shapes.draw(tmp_path / "shapes", train=24, val=5, test=4)
    recipes = {}
    for processes in (1, 2):
        recipes[processes] = tmp_path / f"recipe-{processes}.toml"
        recipes[processes].write_text(RECIPE.format(source=source, batch_size=6 // processes))
    alone, both = tmp_path / "alone", tmp_path / "both"
    Run(load(recipes[1], Recipe), alone)()
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*start, "-m", "cutline.cli.main", "run", str(recipes[2]), "--out", str(both)],
        capture_output=True, text=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    logs = [list(jsonl.read(folder / "train/log.jsonl")) for folder in (alone, both)]
    assert [row["step"] for row in logs[0]] == [row["step"] for row in logs[1]]
    for mine, theirs in zip(*logs, strict=True):
        assert mine.keys() == theirs.keys()
        for key in mine.keys() - {"val_seconds"}:
            assert theirs[key] == pytest.approx(mine[key], rel=1e-4, abs=1e-6), (key, mine, theirs)
    weights = [load_file(folder / "model/model.safetensors") for folder in (alone, both)]
    for name, tensor in weights[0].items():
        assert (weights[1][name] - tensor).abs().max() < 1e-5, name
    assert done.stderr.count("what is trained") == 1  # one of them talks
    captions = [list(jsonl.read(folder / "predictions.jsonl")) for folder in (alone, both)]
    assert [row["caption"] for row in captions[0]] == [row["caption"] for row in captions[1]]
