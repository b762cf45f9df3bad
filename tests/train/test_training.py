"""Training: exact resume, honest normalisation, the best checkpoint, features that are never stale."""

from __future__ import annotations

import shutil
import sys
from typing import Literal

import pytest
import torch
from PIL import Image

from cutline.core import jsonl
from cutline.core.errors import DataError, TrainingError
from cutline.data.dataset import Dataset
from cutline.data.prepare.prepare import prepare
from cutline.data.settings import DataSettings
from cutline.families.common.feature_cache import FeatureCache
from cutline.families.open import find
from cutline.images import shapes
from cutline.train import checkpoints as saved
from cutline.train import evaluator, log
from cutline.train import train as verb
from cutline.train.examples import Collator, Examples
from cutline.train.settings import TrainSettings
from cutline.train.trainable import open_parts


def vit_gpt2(dropout: float = 0.1):
    sizes = {"vision_layers": 1, "vision_width": 16, "text_layers": 1, "text_width": 16, "heads": 2, "dropout": dropout}
    return find("vision_encoder_decoder").new(sizes, [], seed=0)


def settings(**changes) -> TrainSettings:
    usual = {"max_steps": 8, "eval_steps": 2, "batch_size": 3, "lr": 1e-2, "warmup_steps": 2, "logging_steps": 1}
    return TrainSettings(**(usual | {"val_max_new_tokens": 6} | changes))


def weights(family):
    return {name: tensor.clone() for name, tensor in family.model.state_dict().items()}


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Killed(BaseException):
    pass


def kill_at(monkeypatch, step: int):
    real = log.Log.on_step_end

    def on_step_end(self, args, state, control, **rest):
        if state.global_step == step:
            raise Killed
        real(self, args, state, control, **rest)

    monkeypatch.setattr(log.Log, "on_step_end", on_step_end)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("vision_encoder_decoder", {}),
        ("vision_encoder_decoder", {"parts": {"vision": "frozen", "text": "lora"}, "lora": {"r": 2, "dropout": 0.3}}),
        ("cnn_rnn", {}),
        ("cnn_rnn", {"scst": {"start_epoch": 0.3, "samples": 2}}),
    ],
)
def test_killed_and_resumed_is_the_same_as_unbroken(dataset, tmp_path, monkeypatch, family, changes):
    """n steps + resume + n steps = 2n steps, to the last bit, with dropout, draws, in the middle of an epoch."""

    def make():
        return vit_gpt2() if family == "vision_encoder_decoder" else find("cnn_rnn").tiny(["a red square"], seed=0)

    unbroken = make()
    facts = verb.train(unbroken, dataset, settings(**changes), tmp_path / "unbroken")
    for step in (3, 7):  # 5 steps and more of an epoch of 8; a checkpoint at each even step
        with monkeypatch.context() as patch:
            kill_at(patch, step)
            with pytest.raises(Killed):
                verb.train(make(), dataset, settings(**changes), tmp_path / "broken")
    # the kill may also come while a checkpoint is written
    checkpoints = tmp_path / "broken/checkpoints"
    shutil.copytree(checkpoints / "checkpoint-6", checkpoints / "checkpoint-7")
    (checkpoints / "checkpoint-7" / saved.WHOLE).unlink()
    (checkpoints / "checkpoint-7" / "optimizer.pt").write_bytes(b"half")
    resumed = make()
    assert verb.train(resumed, dataset, settings(**changes), tmp_path / "broken") == facts
    assert same(weights(resumed), weights(unbroken))
    logs = [list(jsonl.read(tmp_path / name / "log.jsonl")) for name in ("unbroken", "broken")]
    timeless = [[{k: v for k, v in row.items() if k != "val_seconds"} for row in log] for log in logs]
    assert timeless[0] == timeless[1]


def test_accumulated_batches_are_one_large_batch(dataset, tmp_path):
    """Also when captions differ in length: the loss is a mean over tokens, not over batches."""
    trained = []
    for name, batch_size, accumulate in (("large", 6, 1), ("small", 2, 3)):
        family = vit_gpt2(dropout=0.0)
        # plain descent keeps differences as small as they are; Adam would blow up those near zero
        plain = settings(
            batch_size=batch_size,
            gradient_accumulation_steps=accumulate,
            max_steps=2,
            optimizer="sgd",
            lr=0.5,
            warmup_steps=0,
        )
        verb.train(family, dataset, plain, tmp_path / name)
        trained.append(weights(family))
    start = weights(vit_gpt2(dropout=0.0))
    moved = max(float((trained[0][name] - start[name]).abs().max()) for name in start)
    apart = max(float((trained[0][name] - trained[1][name]).abs().max()) for name in start)
    assert moved > 1e-3
    assert apart < 1e-5 * max(1.0, moved)


def test_logged_loss_is_nats_a_token(dataset, tmp_path):
    """A fresh model knows nothing: its loss is about the logarithm of the vocabulary's size."""
    family = vit_gpt2(dropout=0.0)
    verb.train(family, dataset, settings(max_steps=2, gradient_accumulation_steps=2, batch_size=4), tmp_path)
    first = next(jsonl.read(tmp_path / "log.jsonl"))
    size = len(family.tokenizer)
    assert first["loss"] == pytest.approx(torch.log(torch.tensor(float(size))).item(), abs=0.3)


def test_best_checkpoint_by_generated_captions_is_kept(dataset, tmp_path, monkeypatch):
    seen = {}
    scores = iter([0.1, 0.9, 0.5, 0.2])

    def validation(self, family, step):
        value = next(scores)
        seen[value] = weights(family)
        return {"cider": value, "bleu4": 0.0}

    monkeypatch.setattr(evaluator.CaptionEvaluator, "__call__", validation)
    family = vit_gpt2()
    facts = verb.train(family, dataset, settings(), tmp_path)
    assert facts["best_step"] == 4
    assert facts["best_val_cider"] == 0.9
    assert same(weights(family), seen[0.9])


def test_stops_early_when_captions_get_no_better(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluator.CaptionEvaluator, "__call__", lambda self, family, step: {"cider": 0.1, "bleu4": 0.0})
    facts = verb.train(vit_gpt2(), dataset, settings(max_steps=40, patience=2), tmp_path)
    assert facts["steps"] == 6


def test_loss_that_is_no_number_stops_the_training(dataset, tmp_path):
    family = vit_gpt2()
    with torch.no_grad():
        family.model.decoder.transformer.wte.weight.fill_(float("inf"))
    with pytest.raises(TrainingError, match="loss became nan"):
        verb.train(family, dataset, settings(), tmp_path)


def test_other_parts_than_before_is_an_error_and_loses_nothing(dataset, tmp_path):
    verb.train(vit_gpt2(), dataset, settings(max_steps=2), tmp_path)
    with pytest.raises(TrainingError, match="other parts open"):
        verb.train(vit_gpt2(), dataset, settings(max_steps=4, parts={"vision": "frozen"}), tmp_path)
    assert (tmp_path / "checkpoints/checkpoint-2" / saved.WEIGHTS).exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": "adamw_torhc"}, "adamw_torhc is not a valid"),
        ({"optimizer": "paged_adamw_8bit"}, "bitsandbytes"),
        ({"report_to": ["tensorbord"]}, "tensorbord is not supported"),
        ({"gradient_checkpointing": True}, "no gradient checkpointing"),
    ],
)
def test_what_the_trainer_refuses_is_said_in_plain_words(dataset, tmp_path, monkeypatch, changes, words):
    for name in ("bitsandbytes", "bitsandbytes.optim"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it weren't installed
    with pytest.raises(TrainingError, match=words):
        verb.train(find("cnn_rnn").tiny(["a red square"]), dataset, settings(**changes), tmp_path)


def test_no_validation_split_is_said_before_training(dataset, tmp_path):
    train_only = tmp_path / "dataset"
    shutil.copytree(dataset.path, train_only)
    source = shapes.draw(tmp_path / "shapes", train=4, val=0, test=4)
    prepare(DataSettings(source=str(source)), tmp_path / "other")
    with pytest.raises(DataError, match="no split 'val'"):
        verb.train(vit_gpt2(), Dataset.open(tmp_path / "other"), settings(), tmp_path / "run")


# ---- what is trained


def test_parts_open_what_they_say():
    family = find("vision_encoder_decoder").tiny()
    open_parts(family, {"vision": "last:1", "bridge": "full", "text": "frozen"})
    opened = {name for name, p in family.model.named_parameters() if p.requires_grad}
    assert opened
    assert all(family.part_of(name) == "bridge" or ".layer.1." in name or ".layers.1." in name for name in opened)
    assert any(family.part_of(name) == "vision" for name in opened)


def test_last_n_means_the_last_layers_of_that_part_only():
    family = find("qwen2_5_vl").tiny()
    open_parts(family, {"vision": "frozen", "bridge": "frozen", "text": "last:1", "head": "frozen"})
    opened = {name for name, p in family.model.named_parameters() if p.requires_grad}
    assert opened == {n for n, _ in family.model.named_parameters() if n.startswith("model.language_model.layers.1.")}


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"visoin": "full"}, "no such part"),
        ({"text": "last:9"}, "2 layers"),
        ({"bridge": "last:1"}, "no numbered layers"),
        ({"vision": "frozen", "bridge": "frozen", "text": "frozen", "head": "frozen"}, "nothing to train"),
    ],
)
def test_impossible_policies(parts, words):
    with pytest.raises(TrainingError, match=words):
        open_parts(find("qwen2_5_vl").tiny(), parts)


def test_trainable_weights_are_kept_in_float32():
    family = find("qwen2_5_vl").tiny().to(torch.bfloat16)
    open_parts(family, {"vision": "frozen"})
    for name, parameter in family.model.named_parameters():
        assert parameter.dtype == (torch.bfloat16 if family.part_of(name) == "vision" else torch.float32)


# ---- examples


def test_every_caption_is_seen_once_an_epoch():
    from cutline.core.records import Sample

    samples = [Sample(id="a", image="", captions=("1", "2", "3")), Sample(id="b", image="", captions=("4",))]
    sizes: list[tuple[int | Literal["all"], int]] = [(1, 4), (2, 3), ("all", 2)]
    for size, count in sizes:
        examples = Examples(samples, size)
        assert len(examples) == count
        assert sorted(c for n in range(count) for c in examples[n].captions) == ["1", "2", "3", "4"]


# ---- features on disk


def loss_of(family, cache, samples) -> float:
    with torch.no_grad():
        return float(family.eval()(Collator(family, cache)(samples)).nll)


@pytest.mark.parametrize("name", ["vision_encoder_decoder", "qwen2_5_vl", "cnn_rnn"])
def test_cached_features_give_the_same_loss_and_are_found_again(dataset, tmp_path, name):
    family = find(name).tiny(["a red square"]).eval()
    samples = dataset.split("train")[:8]
    cache = FeatureCache(family, tmp_path, torch.float32)
    assert cache.fill(samples) == 8
    live = loss_of(family, None, samples)
    assert loss_of(family, cache, samples) == pytest.approx(live, rel=1e-6)
    again = FeatureCache(find(name).tiny(["a red square"]).eval(), tmp_path, torch.float32)
    assert again.fill(samples) == 0
    assert loss_of(family, again, samples) == pytest.approx(live, rel=1e-6)
    small = FeatureCache(family, tmp_path, torch.float16)
    assert small.fill(samples) == 8
    assert loss_of(family, small, samples) == pytest.approx(live, rel=2e-3)


def test_features_are_never_stale(dataset, tmp_path):
    """A changed image, changed weights and changed image processing are all seen anew."""
    family = find("cnn_rnn").tiny().eval()
    sample = dataset[0]
    picture = tmp_path / "picture.png"
    shutil.copy(sample.image, picture)
    mine = [type(sample)(id="x", image=str(picture), captions=("a red square",))]
    assert FeatureCache(family, tmp_path).fill(mine) == 1
    assert FeatureCache(family, tmp_path).fill(mine) == 0
    Image.new("RGB", (48, 48), "red").save(picture)
    assert FeatureCache(family, tmp_path).fill(mine) == 1
    family.image_processor.size = {"height": 48, "width": 48}
    assert FeatureCache(family, tmp_path).fill(mine) == 1
    other = find("cnn_rnn").tiny(seed=5).eval()
    assert FeatureCache(other, tmp_path).fill(mine) == 1


def test_killed_while_seeing_goes_on_with_the_same_bits(dataset, tmp_path, monkeypatch):
    from cutline.families.common import feature_cache as features

    monkeypatch.setattr(features, "CHUNK", {"cpu": 4})
    family = find("cnn_rnn").tiny().eval()
    samples = dataset.split("train")[:10]
    whole = FeatureCache(family, tmp_path / "whole")
    whole.fill(samples)
    broken = FeatureCache(family, tmp_path / "broken")
    broken.fill(samples)
    index = broken.folder / "index.jsonl"
    text = index.read_bytes()
    lines = text.splitlines(keepends=True)
    for end in (0, len(lines[0]) + 5, sum(map(len, lines[:5])), len(text) - 1):  # torn in and between lines
        index.write_bytes(text[:end])
        again = FeatureCache(family, tmp_path / "broken")
        again.fill(samples)
        for one, other in zip(whole.get(samples), again.get(samples), strict=True):
            assert torch.equal(one["features"], other["features"])


def test_a_frozen_tower_is_looked_at_once_in_a_whole_training(dataset, tmp_path, monkeypatch):
    family = find("cnn_rnn").tiny(["a red square above a blue circle"])
    calls = []
    see = family.model.encode_images
    monkeypatch.setattr(family.model, "encode_images", lambda pixels: calls.append(len(pixels)) or see(pixels))
    verb.train(family, dataset, settings(parts={"vision": "frozen"}), tmp_path, cache_root=tmp_path)
    assert sum(calls) == len(dataset.split("train")) + len(dataset.split("val"))


def test_a_tracker_gets_what_the_log_gets(dataset, tmp_path):
    """Trackers come from the Trainer; TensorBoard stands for them, since it needs no account."""
    pytest.importorskip("tensorboard")
    verb.train(vit_gpt2(), dataset, settings(max_steps=2, report_to=["tensorboard"]), tmp_path)
    assert list(tmp_path.rglob("events.out.tfevents*"))


# ---- self-critical training


def test_reward_is_cider_d(dataset):
    """Against the metric itself, which scores one caption for every image at once."""
    from cutline.metrics.scorer import Scorer
    from cutline.train.cider_reward import CiderReward

    samples = list(dataset.split("train"))
    captions = [samples[(place + 3) % len(samples)].captions[0] for place in range(len(samples))]
    captions[0], captions[1] = "", "a red red red circle circle above"
    rewards = CiderReward(samples)(samples, captions)
    scorer = Scorer({s.id: list(s.captions) for s in samples}, ["cider"], resamples=0)
    expected = scorer.score({s.id: text for s, text in zip(samples, captions, strict=True)})["cider"].per_image
    assert rewards == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["cnn_rnn", "vision_encoder_decoder", "qwen2_5_vl"])
def test_several_captions_are_drawn_of_an_image_that_is_looked_at_once(dataset, monkeypatch, name):
    from cutline.families.settings import GenerateSettings

    family = find(name).tiny(["a red square above a blue circle"]).eval()
    samples = list(dataset.split("train")[:2])
    seen, see = [], family.encode_images
    monkeypatch.setattr(family, "encode_images", lambda batch: seen.append(1) or see(batch))
    batch, settings = family.collate(samples, with_targets=False), GenerateSettings(do_sample=True, max_new_tokens=8)
    made = family.generate(batch, settings, num_return_sequences=3)
    assert len(made) == 6
    assert len(seen) == 1
    assert len({one.text for one in made}) > 1
    assert all(one.logprob < 0 for one in made)


def test_weights_multiply_each_rows_likelihood(dataset):
    family = vit_gpt2(dropout=0.0).eval()
    samples = dataset.split("train")[:3]
    batch = family.collate(samples, with_targets=True)
    alone = [float(family.loss(family.collate([sample], with_targets=True)).nll.detach()) for sample in samples]
    batch["weights"] = torch.tensor([0.5, -1.0, 2.0])
    weighted = float(family.loss(batch).nll.detach())
    assert weighted == pytest.approx(0.5 * alone[0] - alone[1] + 2.0 * alone[2], rel=1e-5)


def test_rewarded_captions_become_likelier(dataset, tmp_path):
    """Self-critical steps raise the CIDEr of the captions that the model draws."""
    from cutline.families.settings import GenerateSettings
    from cutline.train.cider_reward import CiderReward

    samples = list(dataset.split("train"))
    reward = CiderReward(samples)

    def drawn(family) -> float:
        torch.manual_seed(1)
        many = samples * 4
        made = family.generate(
            family.collate(many, with_targets=False), GenerateSettings(do_sample=True, max_new_tokens=14)
        )
        return sum(reward(many, [one.text for one in made])) / len(many)

    family = vit_gpt2(dropout=0.0)
    changes = {"max_steps": 120, "eval_steps": 60, "batch_size": 8, "lr": 5e-3, "val_max_new_tokens": 14}
    verb.train(
        family, dataset, settings(**changes, scst={"start_epoch": 20.0, "lr": 2e-3}), tmp_path
    )  # 3 steps an epoch
    found = []
    for step in (60, 120):
        open_parts(family, {})
        saved.load_trained(family, tmp_path / f"checkpoints/checkpoint-{step}")
        found.append(drawn(family.eval()))
    assert found[1] > 1.2 * found[0], found
