"""Guards: each is sabotaged, stops the training, keeps what was good, and leaves sound and young trainings alone."""

from __future__ import annotations

import json
import math
import shutil
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cutline.core import jsonl
from cutline.core.errors import TrainingError
from cutline.core.records import Prediction, Sample
from cutline.families.open import find
from cutline.train import checkpoints, guards
from cutline.train import train as verb
from cutline.train.guards import Guards, Panel, least_validation_loss
from cutline.train.settings import GuardSettings, TrainSettings

PEOPLE = [("a red circle above a blue square",), ("a green triangle",), ("a purple square",)]
PROMPT = "Describe the image in one sentence."


def vit_gpt2():
    sizes = {"vision_layers": 1, "vision_width": 16, "text_layers": 1, "text_width": 16, "heads": 2}
    return find("vision_encoder_decoder").new(sizes, [], seed=0)


def settings(**changes) -> TrainSettings:
    usual: dict[str, Any] = {"max_steps": 8, "eval_steps": 2, "batch_size": 3, "lr": 1e-3, "warmup_steps": 0}
    usual |= {"logging_steps": 1, "val_max_new_tokens": 20, "guards": GuardSettings(every=1, patience=2, images=3)}
    return TrainSettings(**(usual | changes))


def panel(captions, blank="something", finished=True, told=PROMPT, limit_is_short=False) -> Panel:
    made = [Prediction(id=str(n), caption=text, finished=finished) for n, text in enumerate(captions)]
    return Panel(made, blank, PEOPLE, [told] * 3, limit_is_short)


SOUND = ["a red circle", "a green triangle", "a red circle"]


@pytest.mark.parametrize(
    ("seen", "fault"),
    [
        (panel(SOUND), None),
        (panel(["", " ", "a"]), "empty"),
        (panel(["a dog a dog a dog", "on on on on", "a cat"]), "loops"),
        (panel([f"{PROMPT} a dog", "describe the image in one sentence", "x"]), "echo"),
        (panel(SOUND, told="a red circle"), None),  # people say so, too, of that image; one of three is no fault
        (panel(SOUND, finished=False), "endless"),
        (panel(SOUND, finished=False, limit_is_short=True), None),
        (panel(["a dog"] * 3, blank="a dog"), "same"),
        (panel(["a dog"] * 3, blank="a grey thing"), None),  # it looks at the image after all
    ],
)
def test_what_is_wrong_with_a_panel(seen, fault):
    assert seen.fault() == fault


def say(monkeypatch, script):
    """Makes the panel's captions what a script says at each look: a list of captions, the blank image's last."""
    looks = iter(script)

    def scripted(family, samples, pictures, settings):
        captions, finished = next(looks)
        return [
            Prediction(id=sample.id, caption=text, finished=finished)
            for sample, text in zip(samples, captions, strict=True)
        ]

    monkeypatch.setattr(guards, "caption_pictures", scripted)


GOOD = (["a red circle", "a blue square", "a green triangle", "grey"], True)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ((["", "", "", ""], True), "captions are empty"),
        ((["a a a a a", "b b b b", "c c c c c", ""], True), "captions repeat themselves"),
        ((["same words"] * 4, True), "every image, and a blank one, gets the same caption"),
        ((["a red circle", "a blue square", "a green triangle", "grey"], False), "captions don't end"),
    ],
)
def test_captions_that_turn_bad_stop_the_training(dataset, tmp_path, monkeypatch, bad, words):
    """Two panels in a row, not one; and what was good before them is kept."""
    say(monkeypatch, [GOOD, GOOD, bad, GOOD, bad, bad])
    with pytest.raises(TrainingError, match=f"Stopped at step 6: {words}") as stop:
        verb.train(vit_gpt2(), dataset, settings(), tmp_path)
    assert "weights of step 4 are kept" in stop.value.problem
    assert (tmp_path / "last-good" / checkpoints.WEIGHTS).exists()
    stopped = json.loads((tmp_path / "stopped.json").read_text())
    assert stopped["step"] == 6
    assert stopped["last_good_step"] == 4
    rows = list(jsonl.read(tmp_path / "panel.jsonl"))
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert list(rows[0]["captions"].values()) == GOOD[0][:3]


def test_the_same_command_goes_on_from_the_last_good_step(dataset, tmp_path, monkeypatch):
    """Also where its checkpoint was deleted since, with the best one; to the end that an unbroken training has."""
    bad = (["same words"] * 4, True)
    say(monkeypatch, [GOOD] * 8)
    unbroken = vit_gpt2()
    verb.train(unbroken, dataset, settings(), tmp_path / "unbroken")
    say(monkeypatch, [GOOD, GOOD, bad, bad, bad, bad])
    stopped = tmp_path / "stopped"
    with pytest.raises(TrainingError, match="weights of step 2 are kept"):
        verb.train(vit_gpt2(), dataset, settings(guards=GuardSettings(every=1, patience=4, images=3)), stopped)
    shutil.rmtree(stopped / "checkpoints/checkpoint-2")
    say(monkeypatch, [GOOD] * 6)
    family = vit_gpt2()
    assert verb.train(family, dataset, settings(), stopped)["steps"] == 8
    assert [row["step"] for row in jsonl.read(stopped / "panel.jsonl")] == list(range(1, 9))
    assert not (stopped / "stopped.json").exists()
    last = [find_last(folder) for folder in (stopped, tmp_path / "unbroken")]
    assert all(torch.equal(tensor, last[1][name]) for name, tensor in last[0].items())


def find_last(folder):
    return load_file(folder / "checkpoints/checkpoint-8" / checkpoints.WEIGHTS)


def test_who_turns_the_guards_off_goes_on_from_the_newest_step(dataset, tmp_path, monkeypatch, messages):
    say(monkeypatch, [GOOD, GOOD, *[(["same words"] * 4, True)] * 3])
    with pytest.raises(TrainingError, match="Stopped at step 5"):
        verb.train(vit_gpt2(), dataset, settings(guards=GuardSettings(every=1, patience=3, images=3)), tmp_path)
    (tmp_path / "checkpoints/checkpoint-2/whole").unlink()  # what isn't looked at isn't missed
    verb.train(vit_gpt2(), dataset, settings(guards=GuardSettings(enabled=False)), tmp_path)
    assert "resuming from step" not in messages()
    assert not (tmp_path / "stopped.json").exists()


def test_a_prompt_that_is_echoed_stops_the_training(dataset, tmp_path, monkeypatch):
    family = find("qwen2_5_vl").tiny()
    echo = ([f"{family.prompt} A dog."] * 4, True)
    say(monkeypatch, [GOOD, echo, echo])
    with pytest.raises(TrainingError, match="captions repeat the prompt"):
        verb.train(family, dataset, settings(), tmp_path)


def test_a_young_model_may_say_the_same_of_everything(dataset, tmp_path, monkeypatch):
    """From scratch nothing was sound yet: it has half of the training to get there."""
    same = (["a red"] * 4, True)
    say(monkeypatch, [same] * 4 + [GOOD] * 4)
    assert verb.train(vit_gpt2(), dataset, settings(), tmp_path)["steps"] == 8
    say(monkeypatch, [same] * 8)
    with pytest.raises(TrainingError, match="Stopped at step 5"):
        verb.train(vit_gpt2(), dataset, settings(), tmp_path / "again")


def test_guards_can_be_turned_off(dataset, tmp_path, monkeypatch):
    say(monkeypatch, [])
    off = settings(guards=GuardSettings(enabled=False, every=1))
    assert verb.train(vit_gpt2(), dataset, off, tmp_path)["steps"] == 8
    assert not (tmp_path / "panel.jsonl").exists()


def test_panels_change_nothing_about_the_training(dataset, tmp_path):
    trained = []
    for name, enabled in (("with", True), ("without", False)):
        family = vit_gpt2()
        patient = GuardSettings(enabled=enabled, every=1, patience=100)
        verb.train(family, dataset, settings(guards=patient, max_steps=4), tmp_path / name)
        trained.append(family.model.state_dict())
    assert all(torch.equal(tensor, trained[1][name]) for name, tensor in trained[0].items())


def test_a_loss_that_is_no_number_names_the_module(dataset, tmp_path):
    family = vit_gpt2()
    family.model.enc_to_dec_proj = torch.nn.Linear(16, 16)
    family.model.enc_to_dec_proj.register_forward_hook(lambda module, inputs, output: output * math.nan)
    with pytest.raises(TrainingError, match=r"loss became nan at step 1; the first to blame: enc_to_dec_proj \(Linear"):
        verb.train(family, dataset, settings(), tmp_path)


def test_weights_that_are_no_number_are_named(dataset, tmp_path):
    family = vit_gpt2()
    with torch.no_grad():
        family.model.decoder.transformer.h[0].mlp.c_fc.weight[0, 0] = math.nan
    with pytest.raises(TrainingError, match=r"the weights decoder\.transformer\.h\.0\.mlp\.c_fc\.weight"):
        verb.train(family, dataset, settings(), tmp_path)


def broken_loss(monkeypatch, factor: float):
    real = type(vit_gpt2()).forward

    def forward(self, batch, label_smoothing=0.0):
        loss = real(self, batch, label_smoothing)
        return loss._replace(nll=loss.nll * factor)

    monkeypatch.setattr(type(vit_gpt2()), "forward", forward)


@pytest.mark.parametrize(
    ("factor", "words"),
    [(3.0, "where guessing has"), (1e-4, "which no model can reach so early")],
)
def test_a_loss_that_cannot_be(dataset, tmp_path, monkeypatch, factor, words):
    broken_loss(monkeypatch, factor)
    with pytest.raises(TrainingError, match=words):
        verb.train(vit_gpt2(), dataset, settings(), tmp_path)


def test_a_loss_that_explodes_leaves_the_last_good_step(dataset, tmp_path, monkeypatch, messages):
    real, steps = type(vit_gpt2()).forward, iter(range(100))

    def forward(self, batch, label_smoothing=0.0):
        loss = real(self, batch, label_smoothing)
        return loss._replace(nll=loss.nll * 3) if self.training and next(steps) >= 4 else loss

    say(monkeypatch, [GOOD] * 20)
    with monkeypatch.context() as patch:
        patch.setattr(type(vit_gpt2()), "forward", forward)
        with pytest.raises(TrainingError, match=r"Stopped at step 6.*weights of step 4 are kept"):
            verb.train(vit_gpt2(), dataset, settings(), tmp_path)
    assert verb.train(vit_gpt2(), dataset, settings(), tmp_path)["steps"] == 8
    assert "resuming from step 4, the last good one" in messages()


def test_least_loss_of_several_captions():
    """Two captions of an image share its probability: ln 2 each at best; the same caption twice costs nothing."""
    family = vit_gpt2()
    words = "a red circle"
    tokens = len(family.tokenizer(words)["input_ids"]) + 1
    one = Sample(id="a", image="", captions=(words, words))
    other = Sample(id="b", image="", captions=(words, "a red square"))
    assert least_validation_loss(family, [one]) == 0
    assert least_validation_loss(family, [other]) == pytest.approx(math.log(2) / tokens, rel=0.2)


def test_a_validation_loss_below_what_is_possible(dataset, tmp_path):
    family = vit_gpt2()
    made = Guards(
        family, dataset.split("val")[:2], [Sample(id="b", image="", captions=("a", "b"))], GuardSettings(), 20, 0.0,
        None, tmp_path, 0,
    )  # fmt: skip
    state = type("State", (), {"global_step": 5})
    made.on_evaluate(None, state, None, {"eval_loss": made.least_validation})
    with pytest.raises(TrainingError, match="can't have less than"):
        made.on_evaluate(None, state, None, {"eval_loss": made.least_validation / 2})
