"""Every kind of image file gives the picture that people see, or the right reason."""

from __future__ import annotations

import hashlib
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, features

from cutline.core.errors import CutlineError
from cutline.images import open as images
from cutline.images.open import ImageProblem, decode, image_hash, open_image, read_bytes
from tests.data import bad_images
from tests.data.bad_images import BLUE, BROKEN, COLOURFUL, RED, encode, marker


def near(pixel: Any, colour: tuple[int, int, int], tolerance: int = 40) -> bool:
    return all(abs(int(a) - b) <= tolerance for a, b in zip(pixel, colour, strict=True))


@pytest.mark.parametrize("name", COLOURFUL)
def test_unusual_files_show_the_picture_upright_and_in_its_colours(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(COLOURFUL[name]())
    image = open_image(path)
    assert image.mode == "RGB"
    assert image.size == (96, 64)
    assert near(image.getpixel((20, 16)), RED), image.getpixel((20, 16))
    for place in ((76, 16), (20, 50), (76, 50)):
        assert near(image.getpixel(place), BLUE), (place, image.getpixel(place))
    assert getattr(image, "fp", None) is None  # thousands may wait to be seen: none keeps its file or its bytes
    assert not hasattr(image, "_fp")


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_say_why(tmp_path: Path, name: str) -> None:
    make, reason = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(make())
    with pytest.raises(ImageProblem) as caught:
        open_image(path)
    assert caught.value.reason == reason, caught.value
    assert caught.value.reason in images.IMAGE_REASONS
    assert isinstance(caught.value, CutlineError)
    assert "0x" not in caught.value.detail  # no address of an object
    with pytest.raises(ImageProblem) as again:
        decode(read_bytes(path), str(path))
    assert again.value.reason == reason


def test_missing_and_unreadable(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "no.jpg", "missing"), (tmp_path, "unreadable"), ("a\0b.jpg", "unreadable")):
        with pytest.raises(ImageProblem) as caught:
            open_image(path)
        assert caught.value.reason == reason


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    path.write_bytes(bad_images.grey16())
    values = np.asarray(open_image(path))[0, :, 0]
    assert values[0] == 0
    assert values[-1] == 255
    assert abs(int(values[48]) - 128) < 4
    Image.fromarray(np.linspace(0, 1, 96 * 64, dtype=np.float32).reshape(64, 96)).save(tmp_path / "float.tif")
    assert np.asarray(open_image(tmp_path / "float.tif")).max() == 255
    Image.fromarray(np.linspace(0, 60000, 96 * 64).reshape(64, 96).astype(np.int32)).save(tmp_path / "int.tif")
    assert abs(int(np.asarray(open_image(tmp_path / "int.tif")).mean()) - 117) < 3


def test_grey_and_black_and_white(tmp_path: Path) -> None:
    marker().convert("L").save(tmp_path / "grey.jpg", quality=95)
    values = np.asarray(open_image(tmp_path / "grey.jpg"))  # [H, W, 3]
    assert np.ptp(values, axis=2).max() == 0
    Image.new("1", (10, 10), 1).save(tmp_path / "one.png")
    assert open_image(tmp_path / "one.png").getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_lies_over_white(tmp_path: Path, mode: str, kind: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(encode(bad_images.see_through(mode), kind, **bad_images.WEBP.get(kind, {})))
    image = open_image(path)
    assert image.getpixel((76, 16)) == (255, 255, 255)
    assert image.getpixel((20, 16)) != (255, 255, 255)


def test_transparent_palette_entry_lies_over_white(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(bad_images.palette_transparent())
    image = open_image(tmp_path / "a.png")
    assert near(image.getpixel((20, 16)), RED)
    assert image.getpixel((76, 16)) == (255, 255, 255)


def test_avif_when_pillow_has_it(tmp_path: Path) -> None:
    if not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    (tmp_path / "a.jpg").write_bytes(encode(marker(), "AVIF", quality=95))
    assert near(open_image(tmp_path / "a.jpg").getpixel((20, 16)), RED)


def test_pixels_are_limited_by_our_limit_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker().save(tmp_path / "a.png")
    with pytest.raises(ImageProblem, match="too many pixels"):
        open_image(tmp_path / "a.png", max_pixels=96 * 64 - 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow would warn above 100 px and refuse above 200
    assert open_image(tmp_path / "a.png", max_pixels=96 * 64).size == (96, 64)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_facts_are_of_the_upright_picture_and_its_real_format(tmp_path: Path) -> None:
    data = bad_images.turned(6)
    (tmp_path / "a.gif").write_bytes(data)
    read = read_bytes(tmp_path / "a.gif")
    picture, suffix = decode(read, "a.gif")
    assert (picture.size, suffix) == ((96, 64), ".jpg")
    assert read == data
    assert image_hash(tmp_path / "a.gif") == hashlib.sha256(data).hexdigest()


def test_nothing_of_pillow_or_of_warnings_changes(tmp_path: Path) -> None:
    for name, (make, _) in BROKEN.items():
        (tmp_path / name).write_bytes(make())
    before = list(warnings.filters)
    wrong: list[str] = []

    def work() -> None:
        for name in BROKEN:
            try:
                open_image(tmp_path / name)
                wrong.append(name)
            except ImageProblem:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert list(warnings.filters) == before
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_the_host_may_want_truncated_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(BROKEN["cut.jpg"][0]())
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert open_image(tmp_path / "a.jpg").size == (96, 64)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
