"""Two processes that train for retrieval come to the same as one with the same batch. All kinds of training share the
start of these processes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from cutline.core import jsonl
from cutline.data.prepare.prepare import prepare
from cutline.data.settings import DataSettings
from cutline.images import shapes

#: What is trained, [train.retrieval], and captions an example.
KINDS = {
    "clip": ("clip", {}, 1),
    "clip-cached": ("clip", {"mini_batch_size": 2}, 1),
    "clip-momentum": ("clip", {"mini_batch_size": 2, "momentum": 0.9, "queue": 7, "alpha": 0.3}, 1),
    "siglip": ("siglip", {}, 1),
    "blip": ("blip", {"rerank": 3}, 1),
    "blip-cached": ("blip", {"mini_batch_size": 2}, "all"),
    "blip-mixture": ("mixture", {"mini_batch_size": 3, "lm": 0.5}, 1),
}

#: Imports everything once; then each training process is a fork, which costs no import.
TRAINING = """
import json, multiprocessing, multiprocessing.connection, os, socket, sys, torch
from pathlib import Path
from safetensors.torch import save_file
from cutline.core import ranks
from cutline.data.dataset import Dataset
from cutline.families.open import find
from cutline.train import distributed, hard_negatives
from cutline.train import train as verb
from cutline.train.settings import TrainSettings

drawn = []
real = hard_negatives.draw

def draw(logits, true, *rest):
    drawn.append((real(logits, true, *rest), true))
    return drawn[-1][0]

hard_negatives.draw = draw

def train(name, family, section, captions, dataset, out):
    variants = find("blip" if family == "mixture" else family).variants()
    kind = variants[{"mixture": 2, "blip": 1}.get(family, 0)]
    model = kind.tiny(["a red circle above a blue square"], seed=0)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    settings = TrainSettings(max_steps=3, eval_steps=3, batch_size=8 // ranks.count(), lr=0.1, warmup_steps=0,
                             logging_steps=1, optimizer="sgd", captions_per_image=captions, retrieval=section)
    drawn.clear()
    start = {n: t.clone() for n, t in model.model.state_dict().items()}
    verb.train(model, dataset, settings, out / name)
    # the labels are right, and each process drew the same
    assert all((true[p.images, p.texts] == p.labels.bool()).all() for p, true in drawn)
    # the draws before these were a trial for DDP's flags
    draws = distributed.all_gather_object([[part.tolist() for part in p] for p, _ in drawn[-3:]])
    assert all(other == draws[0] for other in draws)
    if ranks.is_main_process():
        (out / name / "drawn.json").write_text(json.dumps(draws[0]))
        save_file({n: t.clone() for n, t in model.model.state_dict().items()}, out / name / "end.safetensors")
        save_file({n: t for n, t in start.items()}, out / name / "start.safetensors")

def work(rank, count, port):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    distributed.init(torch.device("cpu"))
    dataset, kinds = Dataset.open(Path(sys.argv[1])), json.loads(sys.argv[3])
    for name, kind in kinds.items():
        train(name, *kind, dataset, Path(sys.argv[2]) / str(count))
    distributed.destroy()

fork = multiprocessing.get_context("fork")
for count in (1, 2):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [fork.Process(target=work, args=(rank, count, port)) for rank in range(count)]
    for process in processes:
        process.start()
    # a process that fails leaves the other waiting for it
    while running := [process.sentinel for process in processes if process.exitcode is None]:
        multiprocessing.connection.wait(running)
        if any(process.exitcode for process in processes):
            for process in processes:
                process.kill()
            sys.exit(f"a process of {count} failed")
"""


@pytest.fixture(scope="module")
def dataset_path(tmp_path_factory):
    """Eight images with three captions each: an image is often in both processes' share."""
    folder = tmp_path_factory.mktemp("several")
    source = shapes.draw(folder / "shapes", train=8, val=6, test=0)
    rows = list(csv.reader(source.read_text().splitlines()))
    more = [[image, f"{words} {text}", split] for image, text, split in rows[1:] for words in ("here", "a picture of")]
    with source.open("w", newline="") as file:
        csv.writer(file).writerows([*rows, *more])
    prepare(DataSettings(source=str(source)), folder / "dataset")
    return folder / "dataset"


@pytest.fixture(scope="module")
def trained(dataset_path, tmp_path_factory):
    """The folder with the trainings of one process and of two, of each kind."""
    out = tmp_path_factory.mktemp("trained")
    (out / "train.py").write_text(TRAINING)
    done = subprocess.run(
        [sys.executable, str(out / "train.py"), str(dataset_path), str(out), json.dumps(KINDS)],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_are_one_with_the_same_batch(trained, kind):
    """Captions have the other process's images as candidates, and as hard negatives."""
    one, two = trained / "1" / kind, trained / "2" / kind
    logs = [[row for row in jsonl.read(folder / "log.jsonl") if "loss" in row] for folder in (one, two)]
    assert len(logs[0]) == 3
    for mine, theirs in zip(*logs, strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-5)
        assert theirs["grad_norm"] == pytest.approx(mine["grad_norm"], rel=1e-4)
    validated = [next(row for row in jsonl.read(folder / "log.jsonl") if "val_seconds" in row) for folder in (one, two)]
    assert {k: v for k, v in validated[0].items() if k != "val_seconds"} == {
        k: v for k, v in validated[1].items() if k != "val_seconds"
    }
    start, alone = load_file(one / "start.safetensors"), load_file(one / "end.safetensors")
    both = load_file(two / "end.safetensors")
    assert max(float((alone[name] - start[name]).abs().max()) for name in start) > 1e-3
    assert all(torch.equal(tensor, load_file(two / "start.safetensors")[name]) for name, tensor in start.items())
    for name, tensor in alone.items():
        assert (both[name] - tensor).abs().max() < 1e-5, name


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("blip")])
def test_hard_negatives_come_from_all_processes(trained, kind):
    """The same pairs are drawn by two processes as by one; the script itself sees that no true pair is a negative."""
    drawn = [(trained / processes / kind / "drawn.json").read_text() for processes in ("1", "2")]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) > 100
