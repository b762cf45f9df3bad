"""Families that cut images into tiles: the number is bounded, and what is seen stays what Hugging Face computes."""

from __future__ import annotations

import pytest
import torch

from cutline import families
from cutline.core.errors import CheckpointError
from cutline.core.records import Sample
from cutline.families.common.loss import IGNORED
from cutline.families.common.tiles import TiledFamily
from cutline.families.common.vision_fingerprint import vision_fingerprint
from cutline.families.open import find
from cutline.families.settings import GenerateSettings, ImagePolicy
from tests.conftest import drawing

#: Long ones are cut by all families, Gemma 3's "pan and scan" wants crops of at least 256 px.
SIZES = [(640, 256), (64, 64), (256, 640)]
TILED = [name for name in families.names() if issubclass(find(name), TiledFamily)]


@pytest.fixture(scope="module")
def pictures():
    return [drawing(number, size) for number, size in enumerate(SIZES)]


def opened(name: str, tiles: int | None) -> TiledFamily:
    family = find(name).tiny().eval()
    assert isinstance(family, TiledFamily)
    if tiles:
        family.set_policy(ImagePolicy(tiles=tiles))
    return family


def samples():
    return [Sample(id=str(n), image="", captions=("a red circle", "a blue square")) for n in range(len(SIZES))]


@pytest.mark.parametrize("tiles", [1, 5])
@pytest.mark.parametrize("name", TILED)
def test_tiles_are_bounded_and_the_loss_is_the_plain_models(name, tiles, pictures):
    family = opened(name, tiles)
    batch = family.collate(samples(), with_targets=True, images=pictures)
    assert (1 if tiles == 1 else 2) <= batch["tiles"].max() <= tiles
    assert len(batch["pixel_values"]) == batch["tiles"].sum()
    with torch.no_grad():
        logits = family.model(**family.plain_inputs(batch)).logits[:, :-1].log_softmax(-1)
        loss = float(family.loss(batch).nll)
    labels = batch["labels"][:, 1:]
    picked = logits.gather(2, labels.clamp(min=0)[..., None])[..., 0]
    assert loss == pytest.approx(-float(picked[labels != IGNORED].sum()), rel=1e-5)


@pytest.mark.parametrize("name", TILED)
def test_cached_tiles_say_the_same(name, pictures):
    family = opened(name, 5)
    with torch.no_grad():
        seen = family.split_features(family.encode_images(family.pixels(pictures)))
        alone = [family.split_features(family.encode_images(family.pixels([picture])))[0] for picture in pictures]
    for one, other in zip(seen, alone, strict=True):
        torch.testing.assert_close(one["features"], other["features"], atol=1e-5, rtol=1e-4)
        assert torch.equal(one["tiles"], other["tiles"])
    settings = GenerateSettings(max_new_tokens=6, num_beams=2)
    live = family.generate(family.collate(samples(), with_targets=False, images=pictures), settings)
    cached = family.generate(family.collate(samples(), with_targets=False, features=alone), settings)
    assert [made.text for made in live] == [made.text for made in cached]


@pytest.mark.parametrize("name", TILED)
def test_bound_is_kept_with_the_checkpoint_and_changes_the_cache(name, pictures, tmp_path):
    family = opened(name, None)
    before = vision_fingerprint(family)
    family.set_policy(ImagePolicy(tiles=1))
    assert vision_fingerprint(family) != before
    family.save(tmp_path)
    again = type(family).open(str(tmp_path)).eval()
    again.read_policy(tmp_path)
    assert again.pixels(pictures)["tiles"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", TILED)
def test_other_bounds_are_refused(name):
    with pytest.raises(CheckpointError, match="cuts images into tiles"):
        opened(name, None).set_policy(ImagePolicy(max_pixels=100_000))


def test_families_that_cut_nothing_refuse_tiles():
    for name in ("paligemma", "qwen2_5_vl", "llava"):
        with pytest.raises(CheckpointError, match="tiles"):
            find(name).tiny().set_policy(ImagePolicy(tiles=2))
