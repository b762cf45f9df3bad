"""Small pictures that travel inside a page."""

from __future__ import annotations

import base64
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cutline.images.open import open_image

#: A picture smaller than this is drawn larger than it is, where the marks of strong compression would show.
_TINY_PX = 128


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A JPEG as a data URI, and its size in px."""

    uri: str
    width: int
    height: int

    @property
    def tiny(self) -> bool:
        return max(self.width, self.height) < _TINY_PX


def thumbnail(path: str | Path, side_px: int = 320) -> Thumbnail:
    """An image as people see it, made smaller where its longer side is over ``side_px``; never larger.

    Raises:
        ImageProblem: there is no picture, with the reason.
    """
    picture = open_image(path)
    picture.thumbnail((side_px, side_px), Image.Resampling.LANCZOS, reducing_gap=3.0)
    tiny = max(picture.size) < _TINY_PX
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=95 if tiny else 80, subsampling=0 if tiny else 2, optimize=True)
    encoded = base64.b64encode(out.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/jpeg;base64,{encoded}", *picture.size)


def frame(pictures: Sequence[Thumbnail]) -> float:
    """Width / height of the frame around every picture of a page: the median, between 0.75 and 1.6."""
    middle = statistics.median([picture.width / picture.height for picture in pictures] or [4 / 3])
    return round(min(max(middle, 0.75), 1.6), 3)
