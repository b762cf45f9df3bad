"""A tower divided where its training begins says what it said whole, and its lower half runs once an image."""

from __future__ import annotations

import re

import pytest
import torch
from transformers import CLIPVisionConfig, MobileNetV2Config, ResNetConfig
from transformers.modeling_outputs import BaseModelOutput

from cutline.families.common.feature_cache import FeatureCache
from cutline.families.models.tower import build_tower
from cutline.families.models.tower_split import split_tower
from cutline.families.models.vgg import VggConfig
from cutline.families.open import find
from cutline.train import train as verb
from cutline.train.examples import Collator
from cutline.train.settings import TrainSettings
from cutline.train.trainable import open_parts

TOWERS = {
    "resnet": ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"),
    "mobilenet": MobileNetV2Config(depth_multiplier=0.25, min_depth=4),
    "vgg": VggConfig(depth=11, widths=(4, 4, 8, 8, 8)),
    "clip": CLIPVisionConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16, image_size=64, patch_size=16
    ),
}  # fmt: skip


def layers_of(tower) -> dict[str, int]:
    found = (re.match(r"\D*\.?(\d+)(?=\.)", name) for name, _ in tower.named_parameters())
    return {place[0]: int(place[1]) for place in found if place}


def freeze_but_last(tower) -> None:
    layers = layers_of(tower)
    last = max(layers, key=lambda name: layers[name])
    for name, parameter in tower.named_parameters():
        parameter.requires_grad_(name.startswith(last + "."))


@pytest.mark.parametrize("kind", TOWERS)
def test_halves_together_are_the_whole_also_after_steps(kind):
    torch.manual_seed(0)
    tower = build_tower(TOWERS[kind]).eval()
    freeze_but_last(tower)
    halves = split_tower(tower, layers_of(tower), 64, 64)
    assert halves is not None
    assert halves.frozen
    pixels = torch.randn(2, 3, 64, 64)
    kept = halves.lower(pixels).last_hidden_state.detach()
    before = tower(pixels).last_hidden_state
    assert torch.allclose(halves.upper(kept).last_hidden_state, before, atol=1e-5)
    with torch.no_grad():
        for parameter in tower.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.5).add_(0.01)
    after = tower(pixels).last_hidden_state
    assert not torch.allclose(before, after, atol=1e-4)
    assert torch.allclose(halves.upper(kept).last_hidden_state, after, atol=1e-4)


def test_nothing_to_divide_where_the_first_layer_is_trained_or_the_tower_is_no_chain():
    tower = build_tower(TOWERS["resnet"])
    assert split_tower(tower, layers_of(tower), 64, 64) is None  # all is trained
    freeze_but_last(tower)
    assert split_tower(tower, layers_of(tower), 64, 64) is not None
    stages = tower.encoder.stages

    def forward(hidden, **_):  # the second stage also reads what came before the first
        return BaseModelOutput(last_hidden_state=stages[1](stages[0](hidden)) + hidden.mean())

    tower.encoder.forward = forward
    assert split_tower(tower, layers_of(tower), 64, 64) is None


def test_features_below_the_trained_layers_are_cached_and_the_training_is_the_same(dataset, tmp_path, monkeypatch):
    """Cached or live: the same loss, and the same weights after a training."""
    ends, calls = [], []
    for cache in (True, False):
        family = find("cnn_rnn").tiny(["a red square above a blue circle"], seed=0)
        see = family.model.encode_images
        monkeypatch.setattr(
            family.model, "encode_images", lambda pixels, see=see: calls.append(len(pixels)) or see(pixels)
        )
        settings = TrainSettings(
            parts={"vision": "last:1"}, max_steps=4, eval_steps=2, batch_size=4, lr=1e-2, val_max_new_tokens=4,
            cache_features=cache, cache_dtype="float32",
        )  # fmt: skip
        verb.train(family, dataset, settings, tmp_path / str(cache), cache_root=tmp_path)
        ends.append({name: tensor.clone() for name, tensor in family.model.state_dict().items()})
        if cache:
            assert sum(calls) == len(dataset.split("train")) + len(dataset.split("val"))
    for name, tensor in ends[0].items():
        assert torch.allclose(tensor, ends[1][name], atol=1e-4), name
    moved = find("cnn_rnn").tiny(["a red square above a blue circle"], seed=0).model.state_dict()
    changed = {name for name, tensor in ends[0].items() if not torch.equal(tensor, moved[name])}
    assert any(name.startswith("encoder.encoder.stages.1") for name in changed)
    assert not any(name.startswith(("encoder.encoder.stages.0", "encoder.embedder")) for name in changed)


def test_what_was_seen_below_other_layers_is_not_found(dataset, tmp_path):
    samples = list(dataset.split("train")[:3])
    family = find("cnn_rnn").tiny(["a red square"]).eval()
    seen = []
    for policy in ("frozen", "last:1"):
        open_parts(family, {"vision": policy})
        assert family.freeze_boundary()
        cache = FeatureCache(family, tmp_path, torch.float32)
        seen.append(cache.fill(samples))
        with torch.no_grad():
            cached = float(family.eval()(Collator(family, cache)(samples)).nll)
            live = float(family.eval()(Collator(family, None)(samples)).nll)
        assert cached == pytest.approx(live, rel=1e-5)
    assert seen == [3, 3]
    open_parts(family, {"vision": "full"})
    assert not family.freeze_boundary()
