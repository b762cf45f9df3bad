"""Opening any image file safely: an RGB picture, or one of a few named reasons why there is none.

No setting of Pillow is changed and none of its warnings gets out, so this is safe inside other people's programs and
threads. A host that sets ``ImageFile.LOAD_TRUNCATED_IMAGES`` keeps it, and gets cut-off images as Pillow fills them up.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
from PIL import Image, UnidentifiedImageError

from cutline.core.errors import DataError
from cutline.core.records import Sample
from cutline.images import formats as signatures

#: Why a file gives no picture.
ImageReason = Literal[
    "missing",  # no such file
    "unreadable",  # the system refuses to read it (permission, a folder, a failing disk)
    "empty",  # no bytes
    "not_an_image",  # text, a web page, SVG, PDF … whatever its name says
    "truncated",  # an image whose end is missing
    "corrupt",  # an image whose bytes contradict themselves
    "too_many_pixels",  # more than the limit, known from the header before any pixel is decoded
    "unsupported",  # an image in a format that isn't read here (HEIC, JPEG XL, Photoshop, …)
]
IMAGE_REASONS: tuple[str, ...] = get_args(ImageReason)

#: Key of a sample's ``extra``: its image is to be seen mirrored, left for right.
MIRRORED = "mirrored"

#: A photo of 100 megapixels takes 300 MB of memory.
MAX_PIXELS = 100_000_000

_REMEDY = {
    "missing": "Put the file there, or say where images are with [data] images.",
    "unreadable": "Give yourself permission to read it.",
    "empty": "Fetch the file again.",
    "not_an_image": "Fetch the file again; a web page is often saved in place of a picture.",
    "truncated": "Fetch the file again.",
    "corrupt": "Fetch the file again.",
    "too_many_pixels": "Make it smaller, or raise [data] max_pixels if there is memory for it.",
    "unsupported": "Save it as JPEG, PNG or WebP.",
}

#: EXIF orientation (tag 274) → what turns the stored picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageProblem(DataError):
    """A file that gives no picture.

    Attributes:
        reason: one of ``IMAGE_REASONS``.
        detail: what exactly is wrong, in a few words.
    """

    def __init__(self, path: str | Path, reason: ImageReason, detail: str):
        super().__init__(f"{path}: {reason.replace('_', ' ')}: {detail}.", _REMEDY[reason])
        self.reason: ImageReason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known of an image that was decoded to its last pixel.

    Attributes:
        sha256: of the file's bytes, in hex.
        width, height: of the upright picture, in px.
        suffix: the usual ending for what the bytes really are (".jpg"), whatever the file was called.
        original: width and height before the image was resized, in px; None when it wasn't.
        notes: what EXIF and IPTC say, by field (see ``photo_notes``); only where somebody asked for it.
    """

    sha256: str
    width: int
    height: int
    suffix: str
    original: tuple[int, int] | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Without what is empty."""
        return {key: value for key, value in asdict(self).items() if value}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> ImageFacts:
        original = row.get("original")
        return cls(
            row["sha256"], row["width"], row["height"], row["suffix"],
            original and (original[0], original[1]), row.get("notes", {}),
        )  # fmt: skip


def open_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Opens an image as people see it: upright, RGB with 8 bits, transparency over white, the first frame of several.

    Args:
        path: an image file; its name's ending doesn't matter.
        max_pixels: refuse an image with more pixels, before any of them is decoded.

    Returns:
        A picture of mode RGB, fully in memory.

    Raises:
        ImageProblem: there is no picture, with the reason.
    """
    with _opened(path) as file:
        return _decode(file, path, max_pixels)[0]


def open_sample(sample: Sample) -> Image.Image:
    """The image of a sample, mirrored where training wants it so.

    Raises:
        ImageProblem: as ``open_image``.
    """
    picture = open_image(sample.image)
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if sample.extra.get(MIRRORED) else picture


def as_seen(picture: Image.Image) -> Image.Image:
    """A picture that somebody else opened or made, as ``open_image`` would have given it.

    Raises:
        ImageProblem: it can't be decoded.
    """
    try:
        with _pillow_warnings_kept_in():
            return _to_rgb(picture)
    except Exception as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        reason: ImageReason = "truncated" if _complains_of_end(error) else "corrupt"
        raise ImageProblem("picture", reason, detail) from error


def read_bytes(path: str | Path) -> bytes:
    """All of a file.

    Raises:
        ImageProblem: the file is missing or unreadable.
    """
    with _opened(path) as file:
        try:
            return file.read()
        except OSError as error:
            raise ImageProblem(path, "unreadable", error.strerror or str(error)) from error


def decode(
    data: bytes, name: str, max_pixels: int = MAX_PIXELS, before: Callable[[Image.Image], None] | None = None
) -> tuple[Image.Image, str]:
    """The picture in a file's bytes, upright and RGB, and the usual ending of its format.

    Args:
        name: for messages.
        before: called with the picture while only its header is read; may ask for a reduced scale (``draft``).

    Raises:
        ImageProblem: as ``open_image``.
    """
    return _decode(io.BytesIO(data), name, max_pixels, before)


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height in px as the header says, before any rotation; no pixel is decoded.

    Raises:
        ImageProblem: as ``open_image``, but for what only decoding shows.
    """
    with _opened(path) as file:
        kind = signatures.recognise(file.read(signatures.HEAD))
        if isinstance(kind, signatures.Foreign):
            raise ImageProblem(path, "unsupported" if kind.is_image else "not_an_image", kind.name)
        file.seek(0)
        try:
            with _pillow_warnings_kept_in():
                width, height = kind.plugin()(file).size
        except Exception as error:  # a damaged file makes Pillow raise nearly anything
            raise ImageProblem(path, "corrupt", f"{kind.name}: its header makes no sense") from error
        return width, height


def image_hash(path: str | Path) -> str:
    """SHA-256 of the file's bytes, in hex.

    Raises:
        ImageProblem: the file is missing or unreadable.
    """
    with _opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def member_path(tar: Path, offset: int, size: int) -> str:
    """How a file inside an uncompressed tar is named, to be opened like any other: "photos.tar#512+20480"."""
    return f"{tar}#{offset}+{size}"


def container(path: str | Path) -> tuple[str, int, int] | None:
    """Tar, offset and size of such a name; None for a file of its own."""
    found = re.fullmatch(r"(.+\.tar)#(\d+)\+(\d+)", str(path), re.IGNORECASE | re.DOTALL)
    return (found[1], int(found[2]), int(found[3])) if found else None


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[BinaryIO]:
    if member := container(path):
        with _opened(member[0]) as tar:
            tar.seek(member[1])
            yield io.BytesIO(tar.read(member[2]))
        return
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below; only the opening itself is guarded here
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageProblem(path, "missing", "there is no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL character
        raise ImageProblem(path, "unreadable", getattr(error, "strerror", None) or str(error)) from error
    with file:
        yield file


def _decode(
    file: BinaryIO, path: str | Path, max_pixels: int, before: Callable[[Image.Image], None] | None = None
) -> tuple[Image.Image, str]:
    """The upright RGB picture, and the usual suffix of its format."""
    try:
        head = file.read(signatures.HEAD)
    except OSError as error:
        raise ImageProblem(path, "unreadable", error.strerror or str(error)) from error
    if not head:
        raise ImageProblem(path, "empty", "the file has no bytes")
    kind = signatures.recognise(head)
    if isinstance(kind, signatures.Foreign):
        raise ImageProblem(path, "unsupported" if kind.is_image else "not_an_image", kind.name)
    file.seek(0)
    try:
        with _pillow_warnings_kept_in():
            stored = kind.plugin()(file)
            width, height = stored.size
            if width * height > max_pixels:
                raise ImageProblem(
                    path, "too_many_pixels", f"{width} × {height} px are more than the limit of {max_pixels:,}"
                )
            if before:
                before(stored)
            return _to_rgb(stored), kind.suffix
    except ImageProblem:
        raise
    except Image.DecompressionBombError as error:  # the host program's own limit, which counts too
        raise ImageProblem(path, "too_many_pixels", f"Pillow's own limit in this program: {error}") from error
    except ImportError as error:
        raise ImageProblem(path, "unsupported", f"this Pillow was built without {kind.name}") from error
    except MemoryError as error:
        raise ImageProblem(path, "too_many_pixels", "there isn't enough memory to decode it") from error
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        short = _complains_of_end(error) or signatures.is_cut_short(kind, file)
        detail = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError) or "BytesIO object" in detail:
            detail = "its header makes no sense"
        raise ImageProblem(path, "truncated" if short else "corrupt", f"{kind.name}: {detail}") from error


def _complains_of_end(error: Exception) -> bool:
    text = str(error).lower()
    signs = ("truncated", "unexpected end", "not enough", "end of file", "eof", "buffer is not large enough")
    return isinstance(error, EOFError) or any(sign in text for sign in signs)


def _to_rgb(stored: Image.Image) -> Image.Image:
    picture = stored
    picture.load()
    turned = orientation(stored)
    if picture.mode in ("F", "I") or picture.mode.startswith("I;16"):
        picture = _eight_bits(picture)
    elif picture.has_transparency_data:
        picture = _over_white(picture)
    elif picture.mode != "RGB":
        picture = picture.convert("RGB")
    if turned in _UPRIGHT:
        return picture.transpose(_UPRIGHT[turned])
    # a picture that holds on to no file; a JPEG's has let go of it, and copying costs a tenth of its decoding
    return picture.copy() if picture is stored and stored.format != "JPEG" else picture


def orientation(stored: Image.Image) -> int:
    """EXIF's orientation, 1–8; 1 (upright) where it is absent or broken. From 5 on, width and height are swapped."""
    try:
        return int(stored.getexif().get(0x0112, 1))
    except Exception:  # broken EXIF is common, and no reason to lose the picture
        return 1


def _over_white(picture: Image.Image) -> Image.Image:
    picture = picture.convert("RGBA")
    white = Image.new("RGB", picture.size, (255, 255, 255))
    white.paste(picture, mask=picture.getchannel("A"))
    return white


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Grey of more than 8 bits, scaled: 16 bits by their full range, never clipped to white.

    A wider mode doesn't say its range: 0–1 (float), 0–255 and 0–65535 are told apart by the largest value.
    """
    grey = np.asarray(picture).astype(np.float32)  # [H, W]
    grey = np.nan_to_num(grey, nan=0.0, posinf=0.0, neginf=0.0).clip(min=0)
    largest = float(grey.max(initial=0))
    if picture.mode.startswith("I;16"):
        full = 65535.0
    elif picture.mode == "F" and largest <= 1:
        full = 1.0
    else:
        full = next((limit for limit in (255.0, 65535.0) if largest <= limit), largest)
    eight = np.rint(grey * (255 / full)).astype(np.uint8)
    clear = picture.info.get("transparency")
    if isinstance(clear, int):  # a 16-bit PNG may declare one grey value to be transparent
        eight[grey == clear] = 255
    return Image.fromarray(eight, "L").convert("RGB")


_quiet = threading.Lock()
_quiet_users = 0
_quiet_filter: Any = None


@contextlib.contextmanager
def _pillow_warnings_kept_in() -> Iterator[None]:
    """Ignores warnings that come from Pillow's own modules while any thread is in here.

    ``warnings.catch_warnings`` would silence all modules, and breaks when threads overlap; one counted filter doesn't.
    """
    global _quiet_users, _quiet_filter
    filters: Any = warnings.filters
    with _quiet:
        if _quiet_users == 0:
            warnings.filterwarnings("ignore", module=r"PIL\.")
            _quiet_filter = filters[0]
        _quiet_users += 1
    try:
        yield
    finally:
        with _quiet:
            _quiet_users -= 1
            if _quiet_users == 0:
                with contextlib.suppress(ValueError):  # the host put an older list back meanwhile: it is gone already
                    filters.remove(_quiet_filter)
