"""Objectives and validation of other packages, and loaders whose processes start afresh."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cutline.core import jsonl
from cutline.core.config import Section
from cutline.core.errors import CutlineError, RecipeError, TrainingError
from cutline.train import objectives
from cutline.train import train as verb
from cutline.train.settings import TrainSettings
from tests.train.test_training import same, settings, vit_gpt2, weights

DOCS = Path(__file__).parents[2] / "docs/training.md"


def documented(start: str) -> str:
    """The code block of docs/training.md that starts with a line."""
    code = DOCS.read_text().split(f"    {start}\n", 1)[1].splitlines()
    block = itertools.takewhile(lambda line: not line or line.startswith("    "), code)
    return "\n".join([start, *(line.removeprefix("    ") for line in block)])


SCRIPT = """
import sys
from pathlib import Path
from cutline.core import jsonl
from cutline.core.config import parse
from cutline.core.errors import RecipeError
from cutline.data.dataset import Dataset
from cutline.families.open import find
from cutline.train.settings import TrainSettings
from cutline.train.train import train

usual = {"max_steps": 2, "eval_steps": 2, "batch_size": 3, "logging_steps": 1, "val_max_new_tokens": 4}
chosen = parse(usual | {"confidence": {"weight": 0.25}}, TrainSettings)
assert chosen.rehearsed().confidence.weight == 0.5
try:
    parse({"confidence": {"weigth": 1}}, TrainSettings)
except RecipeError as error:
    assert "Did you mean confidence.weight?" in str(error), error
family = find("cnn_rnn").tiny(["a red square"], seed=0)
train(family, Dataset.open(Path(sys.argv[1])), chosen, Path(sys.argv[2]))
for row in jsonl.read(Path(sys.argv[2]) / "log.jsonl"):
    if "loss" in row:
        assert abs(row["loss"] - row["loss_captions"] - 0.25 * row["loss_confidence"]) < 1e-4, row
        assert row["loss_confidence"] > row["loss_captions"] > 1, row
"""

LOADER = """
import multiprocessing, sys
from pathlib import Path
from cutline.data.dataset import Dataset
from cutline.train.settings import TrainSettings
from cutline.train.train import train
from tests.train.test_training import vit_gpt2

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[3])
    usual = {"max_steps": 2, "eval_steps": 2, "batch_size": 3, "logging_steps": 1, "val_max_new_tokens": 4}
    chosen = TrainSettings(dataloader_num_workers=1, horizontal_flip=True, **usual)
    train(vit_gpt2(), Dataset.open(Path(sys.argv[1])), chosen, Path(sys.argv[2]))
"""


def run(script, *arguments):
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def script_environment(monkeypatch, pytestconfig):
    monkeypatch.setenv("PYTHONPATH", str(pytestconfig.rootpath))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return monkeypatch


def test_an_objective_of_another_package_is_one_file(dataset, tmp_path, script_environment, pytestconfig):
    package = tmp_path / "site"
    (package / "confident-1.0.dist-info").mkdir(parents=True)
    (package / "confident-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: confident\nVersion: 1.0\n")
    (package / "confident-1.0.dist-info/entry_points.txt").write_text("[cutline.objectives]\nconfidence = confident\n")
    (package / "confident.py").write_text(documented("from pydantic import Field"))
    script_environment.setenv("PYTHONPATH", f"{pytestconfig.rootpath}:{package}")
    (tmp_path / "train.py").write_text(SCRIPT)
    run(tmp_path / "train.py", dataset.path, tmp_path / "run")


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_a_loader_that_starts_afresh_gives_the_same_losses(dataset, tmp_path, script_environment, start):
    (tmp_path / "train.py").write_text(LOADER)
    run(tmp_path / "train.py", dataset.path, tmp_path / "other", start)
    usual = {"max_steps": 2, "eval_steps": 2, "batch_size": 3, "logging_steps": 1, "val_max_new_tokens": 4}
    verb.train(vit_gpt2(), dataset, TrainSettings(horizontal_flip=True, **usual), tmp_path / "same")
    logs = [jsonl.read(tmp_path / name / "log.jsonl") for name in ("other", "same")]
    losses = [[row["loss"] for row in log if "loss" in row] for log in logs]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2


def test_a_key_has_one_owner():
    class Mine(Section):
        queue: int = 1

    class Section_(Section):
        rerank: int = 0

    with pytest.raises(CutlineError, match=r"key queue of \[train.retrieval\] belongs to both the objective itc and"):
        objectives._refuse_shared_keys("retrieval", Section_, {"itc": objectives.find()["itc"].Settings, "mine": Mine})


class Length:
    """A user's own validation: the mean length of the captions of its own images."""

    primary_metric = "words"
    greater_is_better = False

    def __init__(self):
        self.seen = {}

    def __call__(self, family, step):
        assert not family.training
        self.seen[step] = weights(family)
        return {"words": float(abs(step - 4)), "other": 1.0}


def test_own_validation_chooses_the_checkpoint(dataset, tmp_path):
    family, evaluator = vit_gpt2(), Length()
    facts = verb.train(family, dataset, settings(), tmp_path, evaluator=evaluator)
    assert facts["best_step"] == 4
    assert facts["best_val_words"] == 0.0
    assert same(weights(family), evaluator.seen[4])
    validated = [row for row in jsonl.read(tmp_path / "log.jsonl") if "val_words" in row]
    assert [row["step"] for row in validated] == [2, 4, 6, 8]
    assert validated[0]["val_other"] == 1.0


def test_own_validation_may_be_a_function(dataset, tmp_path):
    facts = verb.train(
        vit_gpt2(), dataset, settings(max_steps=4), tmp_path, evaluator=lambda family, step: {"cider": float(step)}
    )
    assert facts["best_step"] == 4
    with pytest.raises(TrainingError, match="gives no score 'cider'"):
        verb.train(vit_gpt2(), dataset, settings(), tmp_path / "b", evaluator=lambda family, step: {"words": 1.0})


def test_the_documented_validation_runs(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    vit_gpt2().save("checkpoint")
    code = documented("from pathlib import Path").replace('"photos"', repr(str(dataset.path)))
    code = code.replace("Salesforce/blip-image-captioning-base", "checkpoint")
    exec(code.replace("max_steps=100", "max_steps=2, eval_steps=1, batch_size=3"), {})
    step, nll = capsys.readouterr().out.split()[-2:]
    scores = {row["step"]: row["val_nll"] for row in jsonl.read(Path("runs/mine/log.jsonl")) if "val_nll" in row}
    assert set(scores) == {1, 2}
    assert int(step) == min(scores, key=scores.__getitem__)
    assert float(nll) == pytest.approx(min(scores.values()), rel=1e-4)
    assert Path("runs/mine/model/cutline.json").exists()


def test_captions_and_retrieval_are_not_trained_together():
    from cutline.core.config import parse

    with pytest.raises(RecipeError, match="scst and retrieval can't be trained together"):
        parse({"scst": {"start_epoch": 1}, "retrieval": {}}, TrainSettings)
    with pytest.raises(RecipeError, match="itc, itm and lm are all 0"):
        parse({"retrieval": {"itc": 0, "itm": 0}}, TrainSettings)


def test_a_training_leaves_the_threads_of_the_process_as_they_were(dataset, tmp_path):
    from cutline.families.open import find

    torch.set_num_threads(2)
    try:
        verb.train(find("cnn_rnn").tiny(["a red square"]), dataset, settings(max_steps=2), tmp_path)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_training_has_one_learning_rate_that_begins_later(dataset, tmp_path, monkeypatch):
    known = objectives.find()
    second = type("Second", (known["scst"],), {"name": "second", "section": "scst"})
    both = {**known, "second": second}
    monkeypatch.setattr(objectives, "find", lambda: both)
    chosen = settings(scst={"start_epoch": 1})
    with pytest.raises(TrainingError, match="scst and second each have a learning rate"):
        verb.train(vit_gpt2(), dataset, chosen, tmp_path)
