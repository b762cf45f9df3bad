"""The alignment stage: the bridge first, alone; then what ``[train.parts]`` says."""

from __future__ import annotations

import pytest
import torch

from cutline.core import jsonl
from cutline.core.config import parse
from cutline.core.errors import RecipeError
from cutline.train import checkpoints
from cutline.train import train as verb
from cutline.train.settings import TrainSettings
from tests.train.test_training import Killed, kill_at, same, settings, vit_gpt2, weights

ALIGN = {"align": {"max_steps": 4, "lr": 0.02}, "parts": {"vision": "frozen"}}


def changed(before, after, family) -> set[str | None]:
    return {family.part_of(name) for name in before if not torch.equal(before[name], after[name])}


def test_the_bridge_is_trained_alone_and_then_what_the_parts_say(dataset, tmp_path, monkeypatch):
    family = vit_gpt2()
    fresh = weights(family)
    seen: dict[int, dict[str, torch.Tensor]] = {}
    real = verb._run

    def run(stage):
        seen[len(seen)] = weights(stage.family)
        return real(stage)

    monkeypatch.setattr(verb, "_run", run)
    facts = verb.train(family, dataset, settings(**ALIGN), tmp_path)
    assert same(seen[0], fresh)
    assert changed(fresh, seen[1], family) == {"bridge"}
    assert changed(seen[1], weights(family), family) == {"bridge", "text", "head"}
    assert facts["steps"] == 8
    first = [row for row in jsonl.read(tmp_path / "align/log.jsonl") if "lr" in row]
    assert max(row["lr"] for row in first) == pytest.approx(0.02)
    assert not (tmp_path / "align/checkpoints").exists()


@pytest.mark.parametrize("stage", ["align", "main"])
def test_killed_in_either_stage_and_resumed_is_the_same_as_unbroken(dataset, tmp_path, monkeypatch, stage):
    unbroken = vit_gpt2()
    verb.train(unbroken, dataset, settings(**ALIGN), tmp_path / "unbroken")
    with monkeypatch.context() as patch:
        kill_at(patch, 3 if stage == "align" else 7)  # the first stage has but 4 steps
        with pytest.raises(Killed):
            verb.train(vit_gpt2(), dataset, settings(**ALIGN), tmp_path / "broken")
    assert (tmp_path / "broken/align" / checkpoints.WEIGHTS).exists() == (stage == "main")
    resumed = vit_gpt2()
    verb.train(resumed, dataset, settings(**ALIGN), tmp_path / "broken")
    assert same(weights(resumed), weights(unbroken))


def test_a_wrong_policy_of_the_stage_is_named():
    with pytest.raises(RecipeError, match=r"align\.parts"):
        parse({"align": {"parts": {"bridge": "fully"}}}, TrainSettings)
