"""Rewarded steps end between two weights, and survive a kill."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from cutline.families.open import find
from cutline.train import cider_reward, evaluator, log
from cutline.train import train as verb
from cutline.train.settings import TrainSettings
from cutline.train.weight_interpolation import WeightInterpolation


@pytest.fixture(autouse=True)
def longer_is_better(monkeypatch):
    # CIDEr finds nothing in what an untrained model says, and then no weight moves
    monkeypatch.setattr(
        cider_reward.CiderReward, "__call__", lambda self, samples, captions: [float(len(c)) for c in captions]
    )


def make():
    return find("cnn_rnn").tiny(["a red square"], seed=0)


def settings(**changes) -> TrainSettings:
    usual = {"max_steps": 6, "eval_steps": 2, "batch_size": 3, "lr": 1e-2, "val_max_new_tokens": 6}
    rewarded = {"start_epoch": 3 / 8, "samples": 2, "lr": 1e-2, "interpolation": 0.6}  # 8 steps an epoch
    return TrainSettings.model_validate(usual | {"scst": rewarded | changes})


def state(step):
    return SimpleNamespace(global_step=step)


def test_it_gives_what_lies_between(tmp_path):
    family = make().requires_grad_(True)
    stage = WeightInterpolation(family, 0.6, begin=2)
    weight = family.model.head.weight

    def step(number):
        stage.on_step_begin(None, state(number), None)
        with torch.no_grad():
            weight.add_(number + 1)

    step(0)
    step(1)
    stage.save(tmp_path)
    assert not list(tmp_path.iterdir())  # before its first step it has nothing to keep
    before = weight.detach().clone()
    step(2)
    step(3)
    now = weight.detach().clone()
    with stage.in_place():
        assert torch.allclose(weight, 0.4 * before + 0.6 * now, atol=1e-6)
    assert torch.equal(weight, now)
    stage.save(tmp_path)
    again = WeightInterpolation(family, 0.6, begin=2)
    again.load(tmp_path)
    again.take()
    assert torch.allclose(weight, 0.4 * before + 0.6 * now, atol=1e-6)


def test_what_is_validated_is_what_is_kept_and_differs_from_the_last_step(dataset, tmp_path, monkeypatch):
    seen = []

    def validation(self, family, step):
        seen.append(family.model.head.weight.detach().clone())
        return {"cider": float(len(seen)), "bleu4": 0.0}

    monkeypatch.setattr(evaluator.CaptionEvaluator, "__call__", validation)
    family = make()
    verb.train(family, dataset, settings(), tmp_path)
    assert torch.equal(family.model.head.weight, seen[-1])
    plain = make()
    verb.train(plain, dataset, settings(interpolation=1.0), tmp_path / "plain")
    assert not torch.allclose(plain.model.head.weight, family.model.head.weight, atol=1e-4)


@pytest.mark.parametrize("at", [4, 6])  # before the first rewarded step is in a checkpoint, and after
def test_killed_and_resumed_is_the_same_as_unbroken(at, dataset, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    unbroken = make()
    verb.train(unbroken, dataset, settings(), tmp_path / "unbroken")
    real = log.Log.on_step_end

    def on_step_end(self, args, state, control, **rest):
        if state.global_step == at:
            raise Killed
        real(self, args, state, control, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(log.Log, "on_step_end", on_step_end)
        with pytest.raises(Killed):
            verb.train(make(), dataset, settings(), tmp_path / "broken")
    resumed = make()
    verb.train(resumed, dataset, settings(), tmp_path / "broken")
    for (name, one), other in zip(
        unbroken.model.state_dict().items(), resumed.model.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name
