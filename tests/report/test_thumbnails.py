"""Small pictures for a page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from cutline.images.open import ImageProblem
from cutline.report.thumbnails import thumbnail


def opened(uri: str) -> Image.Image:
    head, _, data = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_longer_side_is_limited_and_the_shape_kept(tmp_path: Path) -> None:
    Image.new("RGB", (1000, 500), "teal").save(tmp_path / "wide.png")
    assert opened(thumbnail(tmp_path / "wide.png", 100).uri).size == (100, 50)


def test_small_pictures_are_not_enlarged(tmp_path: Path) -> None:
    Image.new("RGB", (48, 48), "teal").save(tmp_path / "small.png")
    assert opened(thumbnail(tmp_path / "small.png").uri).size == (48, 48)


def test_turned_and_transparent_pictures_look_as_people_see_them(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40), "teal").save(tmp_path / "turned.jpg", exif=exif)
    assert opened(thumbnail(tmp_path / "turned.jpg").uri).size == (40, 80)
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert opened(thumbnail(tmp_path / "clear.png").uri).getpixel((20, 20)) == (255, 255, 255)


def test_nothing_is_invented_for_a_file_without_picture(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    with pytest.raises(ImageProblem, match="not an image"):
        thumbnail(tmp_path / "page.jpg")
