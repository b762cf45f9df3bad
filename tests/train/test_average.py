"""A moving average of the weights is what is validated and kept, and survives a kill."""

from __future__ import annotations

import pytest
import torch

from cutline.families.open import find
from cutline.train import loop
from cutline.train import train as verb
from cutline.train.average import Average
from cutline.train.settings import TrainSettings


def make():
    return find("cnn_rnn").tiny(["a red square"], seed=0)


def settings(**changes) -> TrainSettings:
    usual = {"max_steps": 6, "evaluate_every": 2, "batch_size": 3, "lr": 1e-2, "val_max_tokens": 6, "ema": 0.8}
    return TrainSettings(**(usual | changes))


def test_it_is_the_mean_that_the_formula_says():
    family = make().requires_grad_(True)
    average = Average(family, 0.9)
    weight = family.model.head.weight
    expected = weight.detach().clone()
    for step in range(1, 4):
        with torch.no_grad():
            weight.add_(step)
        average.on_step_end(None, type("State", (), {"global_step": step})(), None)
        expected = 0.9 * expected + 0.1 * weight.detach()
    raw = weight.detach().clone()
    with average.in_place():
        assert torch.allclose(weight, expected, atol=1e-6)
    assert torch.equal(weight, raw)


def test_what_is_validated_is_what_is_kept_and_differs_from_the_last_step(dataset, tmp_path, monkeypatch):
    seen = []

    def validation(self, family):
        seen.append(family.model.head.weight.detach().clone())
        return {"cider": float(len(seen)), "bleu4": 0.0}

    monkeypatch.setattr(loop.Validation, "__call__", validation)
    family = make()
    verb.train(family, dataset, settings(), tmp_path)
    assert torch.equal(family.model.head.weight, seen[-1])
    plain = make()
    seen.clear()
    verb.train(plain, dataset, settings(ema=None), tmp_path / "plain")
    assert not torch.allclose(plain.model.head.weight, family.model.head.weight, atol=1e-4)


def test_killed_and_resumed_is_the_same_as_unbroken(dataset, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    unbroken = make()
    verb.train(unbroken, dataset, settings(), tmp_path / "unbroken")
    real = loop.Log.on_step_end

    def on_step_end(self, args, state, control, **rest):
        if state.global_step == 5:
            raise Killed
        real(self, args, state, control, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Log, "on_step_end", on_step_end)
        with pytest.raises(Killed):
            verb.train(make(), dataset, settings(), tmp_path / "broken")
    resumed = make()
    verb.train(resumed, dataset, settings(), tmp_path / "broken")
    for (name, one), other in zip(
        unbroken.model.state_dict().items(), resumed.model.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name
