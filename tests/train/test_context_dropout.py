"""Context left out of prompts by chance: which, how often, and the same again after a kill."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cutline.core.errors import TrainingError
from cutline.core.records import Sample
from cutline.data.dataset import Dataset
from cutline.families.open import find
from cutline.train import train as verb
from cutline.train.examples import Collator, Draw, EpochShuffle, Examples
from cutline.train.settings import TrainSettings


def test_each_epoch_leaves_out_another_share_and_a_resumed_one_the_same():
    def bare(epoch: int) -> set[int]:
        order = EpochShuffle(400, seed=3, flip=True, drop_context=0.25)
        order.set_epoch(epoch)
        draws = list(order)
        assert sorted(draw.index for draw in draws) == list(range(400))
        assert {draw.flip for draw in draws} == {True, False}
        return {draw.index for draw in draws if draw.bare}

    assert 60 < len(bare(0)) < 140
    assert bare(0) != bare(1)
    assert bare(1) == bare(1)


def test_without_dropout_the_order_is_what_it_always_was():
    assert list(EpochShuffle(20, seed=1, flip=True)) == list(EpochShuffle(20, seed=1, flip=True, drop_context=0.0))


def test_a_draw_says_what_is_changed():
    sample = Sample(id="a", image="", captions=("a dog", "a cat"), context={"place": "Oslo"})
    examples = Examples([sample], 1)
    ways = [(False, False), (True, False), (False, True), (True, True)]
    found = [examples[Draw(index, *way)] for way in ways for index in range(2)]
    assert [one.captions[0] for one in found] == ["a dog", "a cat"] * 4
    assert [bool(one.extra.get("mirrored")) for one in found] == [False, False, True, True] * 2
    assert [bool(one.context) for one in found] == [True] * 4 + [False] * 4


def test_the_prompt_holds_the_context_or_nothing_of_it_and_the_labels_never(dataset):
    family = find("vision_prefix").tiny(["a red square", "news from Oslo"])
    family.prompt = "News: {context}"
    sample = replace(dataset[0], captions=("a red square",), context={"place": "Oslo"})
    examples = Examples([sample], 1)
    batch = Collator(family, None)([examples[0], examples[Draw(0, bare=True)]])
    assert batch["bare"].tolist() == [False, True]
    texts = [family.tokenizer.decode(ids) for ids in batch["input_ids"]]
    assert "Oslo" in texts[0]
    assert "Oslo" not in texts[1]
    labels = [[int(token) for token in row if token >= 0] for row in batch["labels"]]
    assert labels[0] == labels[1]
    assert "Oslo" not in family.tokenizer.decode(labels[0])


class Told(Dataset):
    """A dataset, or a split of one, whose samples have context."""

    def split(self, name):
        return Told(self.path, super().split(name)._rows)

    def __iter__(self):
        for sample in super().__iter__():
            yield replace(sample, context={"place": f"town {sample.id}"})


def trained(dataset, folder, monkeypatch, **changes):
    """Trains a little; returns which sample had its context in each batch, and the weights."""
    family = find("vision_prefix").tiny(["a red square", "town 1"])
    family.prompt = "{context}"
    prompts = []
    encode = family.collate

    def noted(samples, **how):
        if how["with_targets"] and samples[0].split == "train":
            prompts.append([(sample.id, bool(sample.context)) for sample in samples])
        return encode(samples, **how)

    monkeypatch.setattr(family, "collate", noted)
    settings = TrainSettings(
        epochs=50, eval_steps=3, batch_size=5, val_images=2, val_max_new_tokens=3, guards={"enabled": False},
        lr_scheduler_type="constant", cache_features=False, **changes,
    )  # fmt: skip
    verb.train(family, Told(dataset.path), settings, folder, cache_root=folder)
    return prompts, torch.cat([p.detach().flatten() for p in family.parameters()])


def test_killed_and_resumed_leaves_out_what_an_unbroken_run_does(dataset, tmp_path, monkeypatch):
    prompts, weights = trained(dataset, tmp_path / "unbroken", monkeypatch, max_steps=6, drop_context=0.5)
    trained(dataset, tmp_path / "broken", monkeypatch, max_steps=3, drop_context=0.5)  # in the middle of an epoch
    later, resumed = trained(dataset, tmp_path / "broken", monkeypatch, max_steps=6, drop_context=0.5)
    assert later == prompts[-len(later) :]
    assert torch.equal(weights, resumed)
    assert {bare for row in prompts for _, bare in row} == {True, False}


def test_rewarded_captions_are_drawn_without_the_context_too(dataset, tmp_path, monkeypatch):
    how = {"max_steps": 1, "scst": {"start_epoch": 0.0, "samples": 2}, "drop_context": 1.0}
    prompts, _ = trained(dataset, tmp_path, monkeypatch, **how)
    assert len(prompts) >= 2  # the batch, and the captions drawn for it
    assert not any(told for row in prompts for _, told in row)


def test_a_prompt_without_a_place_for_context_is_refused(dataset, tmp_path):
    with pytest.raises(TrainingError, match="the prompt has no context"):
        verb.train(find("vision_prefix").tiny(), dataset, TrainSettings(drop_context=0.5), tmp_path)
