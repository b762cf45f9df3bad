"""What a file really is, told from its first bytes; names and endings are not believed."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

#: So many bytes are enough to tell.
HEAD = 512


@dataclass(frozen=True, slots=True)
class Known:
    """An image format that is read here.

    Attributes:
        name: what people call it.
        suffix: its usual ending.
        module, type: Pillow's class for it. Naming the class avoids ``Image.open``, which applies the host's pixel
            limit instead of ours and would try formats that start other programs (EPS).
    """

    name: str
    suffix: str
    module: str
    type: str

    def plugin(self) -> Callable[[BinaryIO], Any]:
        plugin: Callable[[BinaryIO], Any] = getattr(importlib.import_module(f"PIL.{self.module}"), self.type)
        return plugin


@dataclass(frozen=True, slots=True)
class Foreign:
    """Something that isn't read here."""

    name: str
    is_image: bool


JPEG = Known("JPEG", ".jpg", "JpegImagePlugin", "JpegImageFile")
PNG = Known("PNG", ".png", "PngImagePlugin", "PngImageFile")
GIF = Known("GIF", ".gif", "GifImagePlugin", "GifImageFile")
WEBP = Known("WebP", ".webp", "WebPImagePlugin", "WebPImageFile")
BMP = Known("BMP", ".bmp", "BmpImagePlugin", "BmpImageFile")
TIFF = Known("TIFF", ".tif", "TiffImagePlugin", "TiffImageFile")
AVIF = Known("AVIF", ".avif", "AvifImagePlugin", "AvifImageFile")
JPEG2000 = Known("JPEG 2000", ".jp2", "Jpeg2KImagePlugin", "Jpeg2KImageFile")
PPM = Known("PPM", ".ppm", "PpmImagePlugin", "PpmImageFile")

#: Endings that image files usually have: what a folder is searched for, and what a name without ending is tried with.
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm", ".pgm",
    ".jfif", ".jpe", ".heic", ".heif", ".jxl",
)  # fmt: skip

_KNOWN = (
    (b"\xff\xd8", JPEG),
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"GIF8", GIF),
    (b"II*\0", TIFF),
    (b"MM\0*", TIFF),
    (b"II+\0", TIFF),
    (b"MM\0+", TIFF),
    (b"\0\0\0\x0cjP  \r\n\x87\n", JPEG2000),
    (b"\xff\x4f\xff\x51", JPEG2000),
)
_FOREIGN = (
    (b"8BPS", Foreign("a Photoshop file", True)),
    (b"\xff\x0a", Foreign("JPEG XL", True)),
    (b"\0\0\0\x0cJXL ", Foreign("JPEG XL", True)),
    (b"%!PS", Foreign("PostScript", True)),
    (b"\xc5\xd0\xd3\xc6", Foreign("PostScript", True)),
    (b"\0\0\1\0", Foreign("a Windows icon", True)),
    (b"DDS ", Foreign("a DDS texture", True)),
    (b"v/1\x01", Foreign("OpenEXR", True)),
    (b"#?RADIANCE", Foreign("Radiance HDR", True)),
    (b"%PDF", Foreign("a PDF document", False)),
    (b"PK\x03\x04", Foreign("a ZIP archive or Office document", False)),
    (b"\x1f\x8b", Foreign("a gzip archive", False)),
    (b"\x1aE\xdf\xa3", Foreign("a video", False)),
)
_HEIF = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


def recognise(head: bytes) -> Known | Foreign:
    """What a file is, from its first ``HEAD`` bytes."""
    for magic, kind in (*_KNOWN, *_FOREIGN):
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and (head[8:12] or b"WEBP") == b"WEBP":
        return WEBP
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, min(len(head), head[3]), 4))}
        if brands & {b"avif", b"avis"}:
            return AVIF
        return Foreign("HEIC", True) if brands & set(_HEIF) else Foreign("a video", False)
    if head[:2] == b"BM" and len(head) >= 18 and head[14] in (12, 40, 52, 56, 64, 108, 124):
        return BMP
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return PPM
    return _text(head) or Foreign("no image format begins with these bytes", False)


def _text(head: bytes) -> Foreign | None:
    for mark, code in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if head.startswith(mark):
            text = head.decode(code, errors="ignore").lstrip("\ufeff")
            break
    else:
        if any(byte < 9 or 14 <= byte < 27 for byte in head):
            return None
        text = head.decode("latin-1")
    start = text.lstrip().lower()
    if "<svg" in start:
        return Foreign("an SVG drawing", False)
    if start.startswith(("<!doctype html", "<html", "<head", "<body")):
        return Foreign("a web page", False)
    if start.startswith("version https://git-lfs"):
        return Foreign("a Git LFS pointer; fetch the file itself with git lfs pull", False)
    if start.startswith("<"):
        return Foreign("an XML or HTML text", False)
    return Foreign("JSON text" if start.startswith(("{", "[")) else "a text", False)


def is_cut_short(kind: Known, file: BinaryIO) -> bool:
    """Whether an image that can't be decoded lacks its end, as far as its format tells."""
    try:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(16)
        file.seek(max(0, size - 65536))
        tail = file.read()
    except (OSError, ValueError):
        return False
    if kind is WEBP:
        return size < 16 or size < int.from_bytes(head[4:8], "little") + 8
    if kind is JPEG:
        return b"\xff\xd9" not in tail
    if kind is PNG:
        return b"IEND" not in tail
    if kind is BMP:
        return size < int.from_bytes(head[2:6], "little")
    if kind is AVIF:
        return _boxes_end(file, size) > size
    return size < 32


def _boxes_end(file: BinaryIO, size: int) -> int:
    """Where the last box of an ISO media file says that it ends."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        length = int.from_bytes(file.read(4), "big")
        if length < 8:  # 0: up to the end of the file; 1: a 64-bit length, which no picture needs
            return size
        at += length
    return at
