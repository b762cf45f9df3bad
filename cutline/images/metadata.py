"""What a photograph's file says of where and when it was taken: EXIF and IPTC, before resizing strips them."""

from __future__ import annotations

import io
import re
from typing import Any

#: IPTC data sets (record 2) that may stand in a prompt. Its caption, headline and title are left alone: in a newsroom's
#: archive they are the very text that a model is to write.
_IPTC = {(2, 55): "date", (2, 90): "city", (2, 92): "place", (2, 95): "state", (2, 101): "country", (2, 25): "keywords"}

_EXIF_BLOCK, _TAKEN, _CHANGED = 0x8769, 0x9003, 0x0132


def photo_notes(data: bytes) -> dict[str, str]:
    """Fields found in an image file: date (YYYY-MM-DD), city, place, state, country, keywords; {} for none.

    Args:
        data: the file's bytes; that it opens was checked before. Broken notes are skipped.
    """
    from PIL import Image, IptcImagePlugin

    found: dict[str, str] = {}
    try:
        with Image.open(io.BytesIO(data)) as picture:
            exif = picture.getexif()
            taken = exif.get_ifd(_EXIF_BLOCK).get(_TAKEN) or exif.get(_CHANGED)
            iptc: dict[Any, Any] = IptcImagePlugin.getiptcinfo(picture) or {}
    except Exception:  # broken notes are common, and no reason to lose the picture
        return {}
    if date := _date(str(taken or "")):
        found["date"] = date
    for key, name in _IPTC.items():
        values = iptc.get(key)
        if values is None:
            continue
        texts = [_text(value) for value in (values if isinstance(values, list) else [values])]
        text = ", ".join(text for text in texts if text)
        if name == "date":
            text = _date(text)
        if text:
            found[name] = text
    return found


def _date(text: str) -> str:
    """EXIF's 2021:08:29 14:03:11 and IPTC's 20210829 as 2021-08-29; "" when it is neither."""
    found = re.match(r"((?:19|20)\d\d)[:-]?(0[1-9]|1[0-2])[:-]?(0[1-9]|[12]\d|3[01])", text.strip())
    return "-".join(found.groups()) if found else ""


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            value = value.decode("latin-1")
    return " ".join(str(value).replace("\0", " ").split())
