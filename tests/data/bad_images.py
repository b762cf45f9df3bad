"""Image files of every kind that people's folders hold: whole but unusual ones, and broken ones."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

#: Left-top quarter red, the rest blue: turning, mirroring and swapped colours all show.
RED, BLUE = (220, 20, 20), (20, 40, 200)


def marker(width: int = 96, height: int = 64) -> Image.Image:
    image = Image.new("RGB", (width, height), BLUE)
    image.paste(RED, (0, 0, width // 2, height // 2))
    return image


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(width: int = 96, height: int = 64) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG written by hand, for what Pillow can't write: 16-bit colour, and headers that lie."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = _chunk(b"IHDR", header) + extra + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def rgb16() -> bytes:
    values = np.asarray(marker()).astype(">u2") * 257  # [H, W, 3]
    return png(96, 64, 16, 2, b"".join(b"\0" + row.tobytes() for row in values))


def grey16(brightest: int = 65535) -> bytes:
    """A ramp from black at the left to ``brightest`` at the right."""
    values = np.tile(np.linspace(0, brightest, 96), (64, 1)).astype(">u2")
    return png(96, 64, 16, 0, b"".join(b"\0" + row.tobytes() for row in values))


def ycck() -> bytes:
    """A JPEG as old Photoshops write it: inverted CMYK, its first three channels turned to YCbCr."""
    # inverted CMYK without black is RGB; YCCK is the YCbCr of its negative
    y, cb, cr = ImageOps.invert(marker()).convert("YCbCr").split()
    black = Image.new("L", y.size, 255)  # inverted: no black
    # Pillow inverts CMYK when it writes; the file then says "CMYK" where it should say "YCCK"
    planes = [Image.eval(band, lambda value: 255 - value) for band in (y, cb, cr, black)]
    data = bytearray(encode(Image.merge("CMYK", planes), "JPEG", quality=95))
    at = data.index(b"Adobe")
    data[at + 11] = 2
    return bytes(data)


def turned(orientation: int) -> bytes:
    """The marker, stored turned, with the EXIF tag that turns it back."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(marker().transpose(undo[orientation]), "JPEG", quality=95, exif=exif.tobytes())


def frames(kind: str) -> bytes:
    rest = [Image.new("RGB", (96, 64), colour) for colour in ("green", "white")]
    return encode(marker(), kind, save_all=True, append_images=rest, duration=100, **WEBP.get(kind, {}))


WEBP: dict[str, dict[str, object]] = {"WEBP": {"lossless": True}}


def see_through(mode: str) -> Image.Image:
    """The marker, transparent in its right half."""
    alpha = Image.new("L", (96, 64), 255)
    alpha.paste(0, (48, 0, 96, 64))
    image = marker().convert("LA" if mode == "LA" else "RGBA")
    image.putalpha(alpha)
    return image


def palette_transparent() -> bytes:
    image = Image.new("P", (96, 64), 1)
    image.putpalette([*RED, *BLUE])
    image.paste(0, (0, 0, 48, 32))
    return encode(image, "PNG", transparency=1)


#: Name → bytes of files that show the marker in colour.
COLOURFUL: dict[str, Callable[[], bytes]] = {
    "plain.jpg": lambda: encode(marker(), "JPEG", quality=95),
    "progressive.jpg": lambda: encode(marker(), "JPEG", quality=95, progressive=True),
    "cmyk.jpg": lambda: encode(marker().convert("CMYK"), "JPEG", quality=95),
    "ycck.jpg": ycck,
    "cmyk.tif": lambda: encode(marker().convert("CMYK"), "TIFF"),
    "rgb16.png": rgb16,
    "palette.png": lambda: encode(marker().quantize(4), "PNG"),
    "palette.gif": lambda: encode(marker().quantize(4), "GIF"),
    "frames.gif": lambda: frames("GIF"),
    "frames.webp": lambda: frames("WEBP"),
    "frames.png": lambda: frames("PNG"),
    "webp_named.jpg": lambda: encode(marker(), "WEBP", lossless=True),
    "png_named.txt": lambda: encode(marker(), "PNG"),
    "trailing.jpg": lambda: encode(marker(), "JPEG", quality=95) + b"\0" * 5000,
    "broken_exif.jpg": lambda: encode(marker(), "JPEG", quality=95, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\1\2\3"),
    "bitmap.bmp": lambda: encode(marker(), "BMP"),
    "tagged.tif": lambda: encode(marker(), "TIFF"),
    "portable.ppm": lambda: encode(marker(), "PPM"),
    **{f"turned{number}.jpg": (lambda number=number: turned(number)) for number in range(2, 9)},  # type: ignore[misc]
}


def _cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def _scrambled(data: bytes) -> bytes:
    broken = bytearray(data)
    middle = len(data) // 2
    broken[middle : middle + 40] = bytes(value ^ 0x5A for value in broken[middle : middle + 40])
    return bytes(broken)


def _seven_bits(jpeg: bytes) -> bytes:
    return jpeg.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x07")


#: Name → (bytes, reason) of files that give no picture.
BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "cut.jpg": (lambda: _cut(encode(noise(), "JPEG"), 0.6), "truncated"),
    "cut_tail.jpg": (lambda: encode(noise(), "JPEG")[:-200], "truncated"),
    "cut_header.jpg": (lambda: encode(noise(), "JPEG")[:20], "truncated"),
    "cut.png": (lambda: _cut(encode(noise(), "PNG"), 0.6), "truncated"),
    "cut.webp": (lambda: _cut(encode(noise(), "WEBP"), 0.6), "truncated"),
    "cut.gif": (lambda: _cut(encode(noise(), "GIF"), 0.6), "truncated"),
    "cut.bmp": (lambda: _cut(encode(noise(), "BMP"), 0.6), "truncated"),
    "cut.tif": (lambda: _cut(encode(noise(), "TIFF"), 0.6), "truncated"),
    "scrambled.png": (lambda: _scrambled(encode(noise(), "PNG")), "corrupt"),
    "seven_bits.jpg": (
        lambda: encode(noise(), "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x07"),
        "corrupt",
    ),
    "empty.jpg": (lambda: b"", "empty"),
    "page.jpg": (lambda: b"<!DOCTYPE html><html><body>Sorry, gone</body></html>", "not_an_image"),
    "drawing.jpg": (lambda: b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "not_an_image"),
    "answer.jpg": (lambda: b'{"error": "not found"}', "not_an_image"),
    "note.jpg": (lambda: "Ein Zettel, kein Bild: größer".encode(), "not_an_image"),
    "paper.jpg": (lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "not_an_image"),
    "pointer.jpg": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "not_an_image"),
    "zeros.jpg": (lambda: b"\0" * 4096, "not_an_image"),
    "bomb.png": (lambda: png(60000, 60000, 8, 2, b"\0" * 1000), "too_many_pixels"),
    "lie.png": (lambda: png(2000, 2000, 8, 2, b"\0" * 1000), "truncated"),
    "photo.heic": (lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "unsupported"),
    "layers.psd": (lambda: b"8BPS\0\1" + b"\0" * 40, "unsupported"),
}
