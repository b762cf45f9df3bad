"""Full memory, poison images and models that fail cost no more than their own rows; no caption is invented."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from cutline.caption.caption import HOPELESS, caption
from cutline.core.errors import CheckpointError
from cutline.core.records import Prediction, Sample
from cutline.families.base import Family
from cutline.families.outputs import Generation
from cutline.families.settings import GenerateSettings
from cutline.images.open import open_image
from tests.caption.helping import Fake, every, fake, some
from tests.conftest import drawing


def test_full_memory_halves_the_batch_and_loses_nothing(family, photos):
    sizes = []

    def generate(batch, settings):
        sizes.append(len(batch["pixel_values"]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return family.generate(batch, settings)

    settings = GenerateSettings(max_new_tokens=6, batch_size=16)
    samples = some(photos, 40)
    made = every(caption(fake(family, generate), samples, settings))
    assert sizes[:4] == [16, 8, 4, 2]
    assert max(sizes[4:]) == 2  # it doesn't try again at once
    expected = every(caption(family, samples, settings))
    assert {id: row.caption for id, row in made.items()} == {id: row.caption for id, row in expected.items()}
    assert all(row.status == "ok" for row in made.values())


def test_after_one_large_image_the_batch_grows_again(family, photos):
    sizes = []

    def generate(batch, settings):
        sizes.append(len(batch["pixel_values"]))
        if len(sizes) < 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9999 bytes")
        return family.generate(batch, settings)

    made = every(caption(fake(family, generate), some(photos, 120), GenerateSettings(max_new_tokens=2, batch_size=4)))
    assert sizes[:4] == [4, 2, 1, 1]
    assert sizes[-1] == 4
    assert all(row.status == "ok" for row in made.values())


def test_an_image_too_large_for_the_memory_is_tried_smaller_and_then_named(family, photos):
    large = photos / "large.png"
    drawing(1, (300, 200)).save(large)
    samples = [*some(photos, 5), Sample(id="large", image=str(large))]
    seen = []
    real = type(family).pixels

    class Sized(Fake):
        """Remembers by the pixels which image they are of."""

        def pixels(self, images):
            made = real(family, images)
            if images[0].size in ((300, 200), (150, 100)):
                seen.append((images[0].size, made["pixel_values"]))
            return made

    def fits(limit: int) -> Any:
        def generate(batch, settings):
            for size, pixels in seen:
                if size[0] > limit and any(torch.equal(one, pixels[0]) for one in batch["pixel_values"]):
                    raise torch.OutOfMemoryError("CUDA out of memory")
            return family.generate(batch, settings)

        return generate

    settings = GenerateSettings(max_new_tokens=6, batch_size=4)
    made = every(caption(cast(Family, Sized(family, fits(200))), samples, settings))
    assert all(row.status == "ok" for row in made.values())
    made = every(caption(cast(Family, Sized(family, fits(100))), samples, settings))
    assert [id for id, row in made.items() if row.status == "failed"] == ["large"]
    assert made["large"].error is not None
    assert made["large"].error.startswith("out_of_memory: ")
    assert "300 × 200 px" in made["large"].error


@pytest.mark.parametrize("words", ["CUDA error: device-side assert\ntriggered", ""])
def test_a_poison_image_costs_its_own_row_only(family, photos, words):
    samples = some(photos, 10)
    expected = every(caption(family, samples, GenerateSettings(max_new_tokens=6, batch_size=4)))
    poison = family.pixels([open_image(samples[7].image)])["pixel_values"][0]

    def generate(batch, settings):
        if any(torch.equal(one, poison) for one in batch["pixel_values"]):
            raise RuntimeError(words)
        return family.generate(batch, settings)

    made = every(caption(fake(family, generate), samples, GenerateSettings(max_new_tokens=6, batch_size=4)))
    failed = made.pop("7")
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.startswith("model_error: RuntimeError: ")
    assert "\n" not in failed.error
    assert {id: row.caption for id, row in made.items()} == {
        id: row.caption for id, row in expected.items() if id != "7"
    }


def test_a_shape_that_the_processor_refuses_costs_its_own_row_only(family, photos):
    class Picky(Fake):
        def pixels(self, images):
            if images[0].size[0] == 48:
                raise ValueError("absolute aspect ratio must be smaller than 200")
            return family.pixels(images)

    made = every(
        caption(cast(Family, Picky(family, family.generate)), some(photos, 10), GenerateSettings(max_new_tokens=2))
    )
    failed = [row for row in made.values() if row.status == "failed"]
    assert len(failed) == 3
    assert all("refuses 48 × 48 px: absolute aspect ratio" in (row.error or "") for row in failed)


@pytest.mark.parametrize("how", ["raises", "not a number"])
def test_a_model_that_never_works_stops_and_leaves_no_rows(family, photos, how):
    def generate(batch, settings):
        if how == "raises":
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return [Generation("a a a", float("nan"), 3, True) for _ in batch["pixel_values"]]

    written: list[Prediction] = []
    samples = [*some(photos, 200), Sample(id="cut", image=str(photos / "cut.jpg"))]
    made = caption(fake(family, generate), samples, GenerateSettings(batch_size=16))
    with pytest.raises(CheckpointError, match=f"failed on each of the first {HOPELESS if how == 'raises' else 32}"):
        written.extend(row for batch in made for row in batch)
    assert all(row.error and row.error.startswith("truncated") for row in written)
    # a handful of images is too few to blame the model: each says why
    few = every(caption(fake(family, generate), some(photos, 5), GenerateSettings(batch_size=2)))
    assert len(few) == 5
    assert all(row.status == "failed" and row.caption is None for row in few.values())


def test_a_model_that_worked_once_may_fail_often(family, photos):
    calls = []

    def generate(batch, settings):
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("broken")
        return family.generate(batch, settings)

    made = every(caption(fake(family, generate), some(photos, 60), GenerateSettings(max_new_tokens=2, batch_size=2)))
    assert sum(row.status == "ok" for row in made.values()) == 2
    assert sum(row.status == "failed" for row in made.values()) == 58


def test_an_empty_caption_is_a_caption_and_a_missing_one_is_none(family, photos):
    def generate(batch, settings):
        return [Generation("", -1.0, 1, True) for _ in batch["pixel_values"]]

    made = every(caption(fake(family, generate), some(photos, 2), GenerateSettings()))
    assert {(row.caption, row.status) for row in made.values()} == {("", "ok")}

    def too_few(batch, settings):
        return family.generate(batch, settings)[1:]

    made = every(caption(fake(family, too_few), some(photos, 3), GenerateSettings(max_new_tokens=2)))
    assert all(row.status == "failed" and row.caption is None for row in made.values())
