"""Resizing: every kind of image becomes an RGB JPEG of the size asked for, near to what full decoding would give."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cutline.data.dataset import Dataset
from cutline.images.open import ImageProblem, open_image
from cutline.images.resize import ResizeSettings, resize
from tests.data.bad_images import BLUE, BROKEN, COLOURFUL, RED, encode, grey16, marker, palette_transparent, see_through
from tests.data.making import pictures, run, table


def resized(data: bytes, **settings: Any) -> Image.Image:
    out, facts = resize(data, ResizeSettings(**settings), "it", 100_000_000)
    picture = Image.open(io.BytesIO(out))
    assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (facts.width, facts.height))
    return picture


def near(pixel: Any, colour: tuple[int, int, int]) -> bool:
    return max(abs(one - other) for one, other in zip(pixel, colour, strict=True)) < 12


def psnr(one: Image.Image, other: Image.Image) -> float:
    difference = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    return 10 * math.log10(255**2 / max(1e-9, float((difference**2).mean())))


@pytest.mark.parametrize("name", COLOURFUL)
def test_every_kind_of_image(name: str) -> None:
    square = resized(COLOURFUL[name](), size_px=32)  # the middle 64 × 64 of 96 × 64
    assert near(square.getpixel((4, 4)), RED)
    assert near(square.getpixel((28, 4)), BLUE)
    assert near(square.getpixel((4, 28)), BLUE)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_ones_keep_their_reason(name: str) -> None:
    make, reason = BROKEN[name]
    with pytest.raises(ImageProblem) as caught:
        resize(make(), ResizeSettings(), name, 100_000_000)
    assert caught.value.reason == reason


def test_transparency_is_laid_over_white_and_16_bits_are_scaled() -> None:
    for data in (encode(see_through("RGBA"), "PNG"), encode(see_through("LA"), "PNG"), palette_transparent()):
        assert near(resized(data, size_px=32).getpixel((28, 28)), (255, 255, 255))
    ramp = np.asarray(resized(grey16(), size_px=64).convert("L"), int)  # [H, W]
    assert 35 < ramp[32, 0] < 55  # the middle 64 of 96 columns
    assert 200 < ramp[32, 63] < 220


def test_modes() -> None:
    data = encode(marker(), "PNG")
    assert resized(data, size_px=48, mode="fit").size == (48, 32)
    assert resized(data, size_px=480, mode="fit").size == (96, 64)
    assert resized(data, size_px=128).size == (128, 128)
    padded = resized(data, size_px=48, mode="pad", pad_colour=(0, 200, 0))
    assert padded.size == (48, 48)
    assert near(padded.getpixel((24, 3)), (0, 200, 0))
    assert near(padded.getpixel((4, 12)), RED)
    assert near(padded.getpixel((40, 36)), BLUE)


def photograph(side: int = 1600) -> Image.Image:
    """Something with edges, ramps and fine structure."""
    y, x = np.mgrid[0:side, 0 : side * 3 // 4] / side
    waves = np.stack([np.sin(40 * x * y), np.cos(25 * x + 60 * y * y), np.sin(90 * (x - y) ** 2)], axis=-1)
    picture = Image.fromarray((127 + 100 * waves).astype(np.uint8))
    picture.paste((250, 250, 240), (side // 5, side // 4, side // 3, side // 2))
    return picture


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["crop", "fit", "pad"])
def test_decoding_at_reduced_scale_is_not_to_be_seen(mode: str, progressive: bool) -> None:
    data = encode(photograph(), "JPEG", quality=92, progressive=progressive)
    fast = resized(data, size_px=224, mode=mode, quality=100)
    full = resized(encode(Image.open(io.BytesIO(data)), "PNG"), size_px=224, mode=mode, quality=100)
    assert psnr(fast, full) >= 40


def test_real_photographs_lose_nothing_to_see(shared: Path) -> None:
    values = []
    for path in sorted((shared / "photos").glob("*.JPEG"))[:12]:
        data = path.read_bytes()
        fast = resized(data, size_px=112, quality=100)
        full = resized(encode(open_image(path), "PNG"), size_px=112, quality=100)
        values.append(psnr(fast, full))
    assert min(values) >= 40


def test_size_target_and_metadata() -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "A camera", 6
    data = encode(photograph(800), "JPEG", quality=95, exif=exif.tobytes(), icc_profile=b"a profile")
    out, facts = resize(data, ResizeSettings(size_px=224, max_kb=15), "it", 10**8)
    assert 7_000 < len(out) <= 15_000
    assert facts.original == (800, 600)  # as seen: the tag turns it
    stripped = Image.open(io.BytesIO(out))
    assert not stripped.getexif()
    assert "icc_profile" not in stripped.info
    kept = resized(data, size_px=224, metadata="keep", mode="fit")
    assert kept.size == (224, 168)  # turned
    assert kept.getexif()[0x010F] == "A camera"
    assert 0x0112 not in kept.getexif()
    assert kept.info["icc_profile"] == b"a profile"


def test_files_of_a_source_are_resized_on_the_way(tmp_path: Path) -> None:
    names = pictures(tmp_path / "s", 4)
    source = table(tmp_path / "s", [f"{name},x,train" for name in names])
    for size in (24, 48):
        report = run(source, tmp_path / "out", steps={"resize": {"size_px": size}})
        assert report.decoded == 4
        dataset = Dataset.open(tmp_path / "out")
        assert dataset.column("width") == dataset.column("height") == [size] * 4
        assert {open_image(sample.image).size for sample in dataset} == {(size, size)}
        assert dataset[0].extra["original_width"] == 16
        assert len(list((tmp_path / "out/images").rglob("*.jpg"))) == 4  # the other size is gone
    again = run(source, tmp_path / "out", steps={"resize": {"size_px": 48}}, max_samples=2)
    assert again.decoded == 0
