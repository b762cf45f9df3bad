"""Mirrored training images: which, how often, and that cached features say what a live tower says."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from cutline.core.records import Sample
from cutline.families.common.feature_cache import FeatureCache
from cutline.families.open import find
from cutline.images.open import open_image, open_sample
from cutline.train import train as verb
from cutline.train.examples import Collator, Draw, EpochShuffle, Examples, may_mirror, mirrored
from cutline.train.settings import TrainSettings


def test_left_becomes_right(tmp_path):
    picture = Image.new("RGB", (4, 2), "white")
    picture.putpixel((0, 0), (255, 0, 0))
    picture.save(tmp_path / "p.png")
    sample = Sample(id="p", image=str(tmp_path / "p.png"))
    assert open_sample(sample).getpixel((0, 0)) == (255, 0, 0)
    assert open_sample(mirrored(sample)).getpixel((3, 0)) == (255, 0, 0)
    assert open_image(sample.image).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("caption", "may"),
    [("A dog on the left.", False), ("the RIGHT-hand side", False), ("a bright light", True), ("leftover food", True)],
)
def test_a_caption_that_names_a_side_keeps_its_image(caption, may):
    sample = Sample(id="a", image="", captions=("a dog", caption))
    assert may_mirror(sample) is may
    flipped = Examples([sample], 1)[Draw(0, flip=True)]  # the first caption's example
    assert flipped.extra.get("mirrored", False) is may


def test_each_epoch_sees_every_example_once_and_mirrors_another_half():
    order = EpochShuffle(400, seed=3, flip=True)
    halves = []
    for epoch in (0, 1):
        order.set_epoch(epoch)
        draws = list(order)
        assert sorted(draw.index for draw in draws) == list(range(400))
        halves.append({draw.index for draw in draws if draw.flip})
    assert all(150 < len(half) < 250 for half in halves)
    assert halves[0] != halves[1]


def test_cached_features_of_mirror_images_are_those_of_a_live_tower(dataset, tmp_path):
    family = find("cnn_rnn").tiny(["a red square"]).eval()
    plain = list(dataset.split("train")[:4])
    both = [*plain, *map(mirrored, plain)]
    cache = FeatureCache(family, tmp_path, torch.float32)
    assert cache.fill(both) == 8
    found = torch.stack([one["features"] for one in cache.get(both)])
    with torch.inference_mode():
        live = family.encode_images(family.pixels([open_sample(sample) for sample in both]))["features"]
    assert torch.allclose(found, live, atol=1e-5)
    assert not torch.allclose(found[:4], found[4:], atol=1e-3)
    batch = Collator(family, cache)(both)
    assert batch["mirrored"].tolist() == [False] * 4 + [True] * 4


@pytest.mark.parametrize("changes", [{"cache_features": False}, {"scst": {"start_epoch": 0.0, "samples": 2}}])
def test_training_with_mirror_images_runs_from_pixels_and_with_rewards(dataset, tmp_path, changes):
    family = find("cnn_rnn").tiny(["a red square"])
    settings = TrainSettings(
        max_steps=2, eval_steps=2, batch_size=3, horizontal_flip=True, val_max_new_tokens=4, **changes
    )
    assert verb.train(family, dataset, settings, tmp_path, cache_root=tmp_path)["steps"] == 2
