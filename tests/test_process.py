"""What a host program relies on: the package leaves its process as it was, and says nothing that nobody asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import drawing

STATE = """
import logging, os, random, signal, sys, warnings
import numpy
import accelerate, datasets, matplotlib, peft, torch, transformers  # what they set by themselves is not ours
from huggingface_hub import constants

#: accelerate's own, which its Accelerator sets for its parts
OTHERS = ("ACCELERATE_", "FSDP_", "TORCH_", "KMP_", "TRITON_")

def state():
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    return {
        "environment": {name: value for name, value in os.environ.items() if not name.startswith(OTHERS)},
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "levels": {one.name: (one.level, one.propagate, one.disabled) for one in loggers if hasattr(one, "handlers")},
        "handlers": {one.name: list(one.handlers) for one in loggers if hasattr(one, "handlers")},
        "hub": {name: value for name, value in vars(constants).items() if name.isupper()},
        "verbosity": transformers.utils.logging.get_verbosity(),
        "bars": transformers.utils.logging.is_progress_bar_enabled(),
        "datasets": datasets.config.HF_HUB_OFFLINE,
        "matplotlib": dict(matplotlib.rcParams),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "grad": torch.is_grad_enabled(),
        "warnings": list(warnings.filters),
        "hooks": (sys.excepthook, sys.displayhook, sys.stdout, sys.stderr),
        "signals": {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)},
        "folder": os.getcwd(),
        "path": list(sys.path),
        "random": (random.getstate(), repr(numpy.random.get_state()), torch.get_rng_state().tolist()),
    }

def compare(before):
    after = state()
    assert before.keys() == after.keys()
    for name, value in before.items():
        if isinstance(value, dict):
            changed = {key: (value[key], after[name].get(key)) for key in value if after[name].get(key) != value[key]}
            if name == "environment":
                changed |= {key: (None, item) for key, item in after[name].items() if key not in value}
            assert not changed, (name, changed)
        else:
            assert after[name] == value, (name, value, after[name])

torch.set_num_threads(2)
before = state()
"""

IMPORTS = """
import cutline
for name in cutline.__all__:
    getattr(cutline, name)
import cutline.families.open, cutline.run.run, cutline.train.train, cutline.report, cutline.retrieve.evaluate
compare(before)
"""

TRAINING = """
from pathlib import Path
import cutline
from cutline.core.config import parse
from cutline.run.recipe import Recipe
from cutline.run.run import Run

recipe = parse(
    {
        "data": {"source": "photos.csv"},
        "model": {"family": "cnn_rnn", "new": {}, "device": "cpu"},
        "train": {},
        "score": {"metrics": ["bleu4"], "resamples": 10},
    },
    Recipe,
)
Run(recipe, "run", tiny=True)()
compare(before)
captioner = cutline.load("run", device="cpu")
(prediction,) = captioner.caption("0.png")
cutline.score({"a": prediction}, {"a": ["a red square"]}, metrics=["bleu4"], resamples=0)
assert Path("run/report.html").is_file()
compare(before)
"""


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", STATE + script], capture_output=True, text=True, cwd=folder, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done


def test_importing_changes_nothing(tmp_path: Path) -> None:
    done = run(IMPORTS, tmp_path)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_whole_run_in_a_notebook_leaves_the_process_as_it_was_and_is_silent(tmp_path: Path) -> None:
    rows = ["image,caption,split"]
    for number in range(8):
        drawing(number).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,a square of number {number},{('train', 'train', 'val', 'test')[number % 4]}")
    (tmp_path / "photos.csv").write_text("\n".join(rows) + "\n")
    done = run(TRAINING, tmp_path)
    assert done.stdout == ""
    assert "cutline" not in done.stderr
    for ours in ("prepare", "training", "what is trained", "report"):
        assert ours not in done.stderr


def test_a_host_program_gets_the_messages_by_logging(tmp_path: Path) -> None:
    script = """
logging.basicConfig(level=logging.INFO, format="%(name)s|%(message)s", stream=sys.stdout)
from cutline.core.config import parse
from cutline.run.recipe import Recipe
from cutline.run.run import Run
recipe = parse({"data": {"source": "photos.csv"}, "model": {"family": "cnn_rnn", "new": {}}}, Recipe)
Run(recipe, "run", tiny=True)(("prepare",))
"""
    drawing(1).save(tmp_path / "1.png")
    (tmp_path / "photos.csv").write_text("image,caption\n1.png,a square\n")
    done = run(script, tmp_path)
    assert any(line.startswith("cutline.run.") and "1 images" in line for line in done.stdout.splitlines())
