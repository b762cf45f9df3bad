"""Resizing an image to what a model sees: decoded at reduced scale, cropped, fitted or padded, stored as JPEG."""

from __future__ import annotations

import hashlib
import io
import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from cutline.core.config import Section
from cutline.images.open import ImageFacts, decode, orientation

if TYPE_CHECKING:
    from PIL import Image

#: Pixels that are decoded before the last resizing, per pixel of the result and direction: the JPEG decoder's own
#: scaling is coarse. With this much, 25 photographs at 64, 96 and 112 px were all within 40.9 dB of full decoding
#: (median 45); with 1.3 some had 37.
_OVER = 1.7

_LOWEST_QUALITY = 40


class ResizeSettings(Section):
    """[data.steps.resize]"""

    size_px: int = Field(default=224, ge=16, le=8192, description="side of the result in px")
    mode: Literal["crop", "fit", "pad"] = Field(
        default="crop",
        description="crop: the centre, a square of size_px; fit: the whole picture, its longer side size_px, never "
        "enlarged; pad: the whole picture in the middle of a square of size_px",
    )
    pad_colour: tuple[int, int, int] = Field(default=(255, 255, 255), description="border colour of pad, RGB 0–255")
    quality: int = Field(default=95, ge=1, le=100, description="JPEG quality; from 80 on, colours at full resolution")
    max_kb: float | None = Field(
        default=None,
        gt=0,
        description=f"size target of a file in kB (1000 bytes): quality is lowered, at most to {_LOWEST_QUALITY}, "
        "until it is met; by default none",
    )
    metadata: Literal["strip", "keep"] = Field(
        default="strip",
        description="what to do with a JPEG's EXIF (without the orientation, which is applied) and with any file's "
        "colour profile and XMP",
    )

    @model_validator(mode="after")
    def _colour(self) -> ResizeSettings:
        if any(not 0 <= part <= 255 for part in self.pad_colour):
            raise ValueError("pad_colour has a part outside 0–255")
        return self


def resize(data: bytes, settings: ResizeSettings, name: str, max_pixels: int) -> tuple[bytes, ImageFacts]:
    """An image file's bytes → the bytes of the resized JPEG, and what it is.

    Raises:
        ImageProblem: it can't be decoded to its last pixel.
    """
    original: tuple[int, int] | None = None
    turned = 1
    kept: dict[str, Any] = {}

    def before(stored: Image.Image) -> None:
        nonlocal original, turned, kept
        if settings.metadata == "keep":
            kept = {key: stored.info[key] for key in ("icc_profile", "xmp") if stored.info.get(key)}
        if stored.format not in ("JPEG", "MPO"):
            return  # in other formats nothing is known of EXIF yet, and there is no scale to reduce
        turned = orientation(stored)
        original = stored.size if turned < 5 else stored.size[::-1]
        if settings.metadata == "keep":
            kept |= _exif(stored)
        share = settings.size_px * _OVER / (min(stored.size) if settings.mode == "crop" else max(stored.size))
        if share < 1:
            stored.draft(None, (math.ceil(stored.width * share), math.ceil(stored.height * share)))

    picture, _ = decode(data, name, max_pixels, before)
    original = original or picture.size
    small = _shaped(picture, _extent(picture, original, turned), settings)
    out = _encoded(small, settings, kept)
    return out, ImageFacts(hashlib.sha256(out).hexdigest(), *small.size, ".jpg", original)


def _extent(picture: Image.Image, original: tuple[int, int], turned: int) -> tuple[float, float, float, float]:
    """Where the original lies in the decoded picture, in fractions of its pixels: left, top, width, height.

    A side of 375 px comes out of the decoder's half scale as 188 px, of which the last is half empty; after turning it
    may be the first. Taking all 188 would stretch the picture, which costs up to 8 dB.
    """
    scale = round(max(original) / max(picture.size))
    width, height = original[0] / scale, original[1] / scale
    left = picture.width - width if turned in (2, 3, 6, 7) else 0.0
    top = picture.height - height if turned in (3, 4, 7, 8) else 0.0
    return left, top, width, height


def _shaped(picture: Image.Image, extent: tuple[float, float, float, float], settings: ResizeSettings) -> Image.Image:
    from PIL import Image as pillow

    size, (left, top, width, height) = settings.size_px, extent
    if settings.mode == "crop":
        side = min(width, height)
        left, top = left + (width - side) / 2, top + (height - side) / 2
        return picture.resize((size, size), pillow.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    share = size / max(width, height)
    if settings.mode == "fit" and share >= 1:
        return picture
    within = (max(1, round(width * share)), max(1, round(height * share)))
    fitted = picture.resize(within, pillow.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    if settings.mode == "fit":
        return fitted
    square = pillow.new("RGB", (size, size), settings.pad_colour)
    square.paste(fitted, ((size - within[0]) // 2, (size - within[1]) // 2))
    return square


def _encoded(picture: Image.Image, settings: ResizeSettings, kept: dict[str, Any]) -> bytes:
    out = _jpeg(picture, settings.quality, kept)
    if settings.max_kb is None or len(out) <= settings.max_kb * 1000:
        return out
    low, high = _LOWEST_QUALITY, settings.quality - 1  # the best quality that meets the target
    best = _jpeg(picture, min(low, settings.quality), kept)
    while low < high:
        middle = (low + high + 1) // 2
        tried = _jpeg(picture, middle, kept)
        if len(tried) <= settings.max_kb * 1000:
            low, best = middle, tried
        else:
            high = middle - 1
    return best


def _jpeg(picture: Image.Image, quality: int, kept: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    # 4:4:4: with halved colours the file is 37 dB from the picture at best, however high the quality
    picture.save(file, "JPEG", quality=quality, subsampling=0 if quality >= 80 else 2, **kept)
    return file.getvalue()


def _exif(stored: Image.Image) -> dict[str, Any]:
    """What Pillow writes into the new file; the orientation is gone, since it is applied."""
    try:
        exif = type(stored.getexif())()  # a copy: the original's orientation is still to be applied
        exif.load(stored.info.get("exif", b""))
        exif.pop(0x0112, None)
        return {"exif": exif.tobytes()} if len(exif) else {}
    except Exception:  # broken EXIF is common, and no reason to lose the picture
        return {}
