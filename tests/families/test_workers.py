"""A data loader's worker gets the family by pickling: under spawn (macOS, Windows) and forkserver (Python 3.14)."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from cutline.core.records import Sample
from cutline.families.common.feature_cache import FeatureCache
from cutline.families.open import find
from cutline.train.examples import Collator, Draw, Examples
from cutline.train.positives import PositivePairs
from cutline.train.retriever import RetrievalCollator
from tests.conftest import drawing

CAPTIONS = ("a red circle above a blue square", "a green triangle")

#: Processors without their video half, a tiled one, one with a processor of its own, and models of our own.
FAMILIES = ("qwen2_5_vl", "internvl", "smolvlm", "florence2", "blip", "cnn_rnn", "vision_mixture", "vision_prefix")


class Several:
    """Collates with each of several collators, so that one worker process is enough for all families."""

    def __init__(self, collators):
        self.collators = collators

    def __call__(self, samples):
        return [collate(samples) for collate in self.collators]


@pytest.fixture
def samples(tmp_path):
    found = []
    for number, caption in enumerate(CAPTIONS):
        path = tmp_path / f"{number}.png"
        drawing(number, (64 + 16 * number, 64)).save(path)
        found.append(Sample(id=str(number), image=str(path), captions=(caption,)))
    return found


@pytest.fixture
def cached(samples, tmp_path):
    """A collator that reads features from a cache on disk."""
    cache = FeatureCache(find("cnn_rnn").tiny(CAPTIONS), tmp_path / "cache")
    cache.fill(samples)
    return Collator(cache.family, cache)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_worker_collates_the_same_batches(method, samples, cached):
    collate = Several([*(Collator(find(name).tiny(CAPTIONS), None) for name in FAMILIES), cached])
    loader = DataLoader(samples, batch_size=2, collate_fn=collate, num_workers=1, multiprocessing_context=method)
    (batches,) = list(loader)
    for batch, expected in zip(batches, collate(samples), strict=True):
        assert set(batch) == set(expected)
        for key, value in expected.items():
            assert torch.equal(batch[key], value), key


def test_a_cache_is_pickled_without_its_features(cached, samples):
    cache = cached.cache
    size = sum(tensor.numel() * tensor.itemsize for one in cache.get(samples) for tensor in one.values())
    raw = bytes(torch.cat([one["features"].flatten() for one in cache.get(samples)]).view(torch.uint8).numpy())
    pickled = pickle.dumps(cache)
    assert len(raw) == size
    assert raw[:256] not in pickled
    again = pickle.loads(pickled).get(samples)
    for one, other in zip(again, cache.get(samples), strict=True):
        assert torch.equal(one["features"], other["features"])


def test_a_worker_of_a_retrieval_training_gets_no_weights(samples):
    family: Any = find("vision_mixture").tiny(CAPTIONS)
    collate = RetrievalCollator(family, None, PositivePairs(samples), 1, ("itc", "itm", "lm"))
    weights = sum(tensor.numel() * tensor.itemsize for tensor in family.model.state_dict().values())
    assert len(pickle.dumps(collate)) < weights / 2
    examples = Examples(samples, "all")
    loader = DataLoader(
        examples, sampler=[Draw(0), Draw(1)], batch_size=2, collate_fn=collate, num_workers=1,
        multiprocessing_context="spawn",
    )  # fmt: skip
    (result,) = list(loader)
    batch, expected = result["batch"], collate([examples[Draw(0)], examples[Draw(1)]])["batch"]
    assert batch.captions == expected.captions
    assert torch.equal(batch.images, expected.images)
    assert torch.equal(batch.visual["pixel_values"], expected.visual["pixel_values"])
    assert batch.extra.keys() == expected.extra.keys()
    for ours, theirs in zip(batch.extra["lm"], expected.extra["lm"], strict=True):
        assert torch.equal(ours["labels"], theirs["labels"])
