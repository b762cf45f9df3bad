"""Training for retrieval from its settings to its checkpoint."""

from __future__ import annotations

from typing import cast

import pytest
import torch

from cutline.core import config as recipe
from cutline.core import jsonl
from cutline.core.errors import CheckpointError, RecipeError, TrainingError
from cutline.families.common.retrieval import RetrievalFamily
from cutline.families.open import find, open_checkpoint, open_family
from cutline.families.settings import ModelSettings
from cutline.retrieve.evaluate import evaluate
from cutline.retrieve.settings import RetrieveSettings
from cutline.train import train as verb
from cutline.train.settings import TrainSettings
from tests.train.test_training import Killed, kill_at, same, weights


def settings(retrieval=None, **changes) -> TrainSettings:
    usual = {"max_steps": 6, "eval_steps": 2, "batch_size": 6, "lr": 1e-3, "warmup_steps": 0, "logging_steps": 1}
    return TrainSettings(**(usual | {"retrieval": retrieval or {}} | changes))


def matcher():
    return find("blip").variants()[1].tiny(["a red circle above a blue square"], seed=0)


def test_killed_and_resumed_is_the_same_as_unbroken(dataset, tmp_path, monkeypatch):
    """To the last bit, with the momentum encoder, its queue, drawn negatives and the learnt temperature."""
    chosen = settings(
        {"momentum": 0.9, "queue": 10, "alpha": 0.4, "mini_batch_size": 4, "rerank": 3, "itm_warmup": 1.0}
    )
    unbroken = matcher()
    facts = verb.train(unbroken, dataset, chosen, tmp_path / "unbroken")
    with monkeypatch.context() as patch:
        kill_at(patch, 3)
        with pytest.raises(Killed):
            verb.train(matcher(), dataset, chosen, tmp_path / "broken")
    resumed = matcher()
    assert verb.train(resumed, dataset, chosen, tmp_path / "broken") == facts
    assert same(weights(resumed), weights(unbroken))
    logs = [list(jsonl.read(tmp_path / name / "log.jsonl")) for name in ("unbroken", "broken")]
    timeless = [[{k: v for k, v in row.items() if k != "val_seconds"} for row in log] for log in logs]
    assert timeless[0] == timeless[1]
    assert {"val_tr_recall_at_1", "val_ir_recall_at_10", "val_mean_recall"} <= logs[0][-1].keys()
    for row in logs[0]:
        if "loss" in row:
            assert row["loss"] == pytest.approx(row["loss_itc"] + row["loss_itm"], abs=1e-5)


def test_recall_on_validation_chooses_the_checkpoint(dataset, tmp_path, monkeypatch):
    values = iter([0.2, 0.9, 0.3])
    monkeypatch.setattr(
        "cutline.train.evaluator.recalls", lambda *_: {"mean_recall": 0.0, "ir_recall_at_1": next(values)}
    )
    facts = verb.train(matcher(), dataset, settings({"metric": "ir_recall_at_1"}), tmp_path)
    assert facts["best_step"] == 4
    assert facts["best_val_ir_recall_at_1"] == 0.9


def test_a_small_clip_learns_to_find_the_pictures_that_it_is_trained_on(dataset, tmp_path):
    family = find("clip").tiny([caption for s in dataset.split("train") for caption in s.captions], seed=0)
    chosen = settings({}, max_steps=60, eval_steps=60, batch_size=24, lr=3e-3, logging_steps=10)
    verb.train(family, dataset, chosen, tmp_path)
    losses = [row["loss"] for row in jsonl.read(tmp_path / "log.jsonl") if "loss" in row]
    assert losses[0] > 2.0  # 24 candidates: chance is log 24 = 3.2
    assert losses[-1] < 1.5


def test_a_frozen_towers_features_are_cached_and_change_nothing(dataset, tmp_path):
    trained = {}
    for cached in (True, False):
        trained[cached] = matcher()
        chosen = settings(parts={"vision": "frozen"}, cache_features=cached, cache_dtype="float32", max_steps=2)
        verb.train(trained[cached], dataset, chosen, tmp_path / str(cached))
    for name, tensor in weights(trained[True]).items():
        torch.testing.assert_close(tensor, weights(trained[False])[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("family", "section", "words"),
    [
        ("vision_encoder_decoder", {}, "can't embed"),
        ("clip", {"itm": 1.0}, "can't match"),
        ("clip", {"lm": 1.0}, "can't write captions"),
        ("siglip", {"momentum": 0.99}, "sigmoid"),
    ],
)
def test_what_a_family_cannot_learn_is_said_at_once(dataset, tmp_path, family, section, words):
    with pytest.raises(TrainingError, match=words):
        verb.train(find(family).tiny(), dataset, settings(section), tmp_path)


def test_a_wrong_key_has_the_nearest_known_one():
    with pytest.raises(RecipeError) as caught:
        recipe.parse({"retrieval": {"mini_batch": 8}}, TrainSettings)
    assert "retrieval.mini_batch_size?" in str(caught.value.remedy)
    with pytest.raises(RecipeError, match="queue and alpha need momentum"):
        recipe.parse({"retrieval": {"queue": 8}}, TrainSettings)


def test_the_usual_training_still_validates_by_likelihood(dataset, tmp_path):
    family = find("vision_encoder_decoder").tiny()
    plain = TrainSettings(
        max_steps=2, eval_steps=2, batch_size=6, warmup_steps=0, logging_steps=1, val_max_new_tokens=4
    )
    verb.train(family, dataset, plain, tmp_path)
    assert any("val_loss" in row for row in jsonl.read(tmp_path / "log.jsonl"))


def test_features_kept_in_sixteen_bits_are_validated_in_bfloat16(dataset, tmp_path):
    """On a CPU, whose autocast can't stack float16."""
    chosen = settings(parts={"vision": "frozen"}, precision="bfloat16", max_steps=2)
    facts = verb.train(find("vision_mixture").tiny(), dataset, chosen, tmp_path)
    assert facts["steps"] == 2


def test_what_a_new_model_was_never_trained_for_is_refused(dataset, tmp_path, caplog):
    """Its matching head is random; to rank by it would only spoil what embeddings found."""
    asked = ModelSettings(family="vision_mixture", new={"encoder": "a ResNet"}, dtype="float32", device="cpu")
    family = open_family(asked, ["a red circle above a blue square"], tiny=True, task="embed")
    verb.train(family, dataset, settings({"itm": 0.0}, max_steps=2), tmp_path / "training")
    family.save(tmp_path / "model")
    opened = cast(RetrievalFamily, open_checkpoint(tmp_path / "model", "float32", "cpu", task="embed"))
    for task in ("match", "caption"):
        with pytest.raises(CheckpointError, match="never trained to"):
            opened.require(task)
    found = evaluate(opened, list(dataset.split("val")), RetrieveSettings(resamples=0), tmp_path / "retrieval", {})
    assert "embeddings alone" not in found.baselines  # they are what ranks
    assert "matching head is not trained" in caplog.text
    with pytest.raises(CheckpointError, match="rerank = 4, but this model's matching head is not trained"):
        evaluate(opened, list(dataset.split("val")), RetrieveSettings(rerank=4), tmp_path / "refused", {})
    assert not (tmp_path / "refused").exists()
    without = RetrieveSettings(rerank=0, resamples=0)
    alone = evaluate(opened, list(dataset.split("val")), without, tmp_path / "without", {})
    assert alone.scores == found.scores
    verb.train(opened, dataset, settings({"itm": 1.0}, max_steps=2), tmp_path / "more")
    opened.require("match")
