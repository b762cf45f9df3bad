"""Shortens ids for tables and pages, keeping as much of each as tells them apart."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: Longest id, in characters, that is shown whole.
MAX_LENGTH = 28

_HASH = re.compile(r"[0-9a-f]{20,}", re.IGNORECASE)


def shorten_ids(ids: Sequence[str]) -> list[str]:
    """Drops the folders that all ids share, most of a hash, and the middle of a long id.

    Ids whose short forms would be equal stay whole.
    """
    folders = [id.split("/")[:-1] for id in ids]
    shared = 0
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        shared += 1
    names = [_short("/".join(id.split("/")[shared:])) for id in ids]
    originals: dict[str, set[str]] = {}
    for id, name in zip(ids, names, strict=True):
        originals.setdefault(name, set()).add(id)
    return [name if len(originals[name]) == 1 else id for id, name in zip(ids, names, strict=True)]


def _short(name: str) -> str:
    name = _HASH.sub(lambda match: f"{match[0][:8]}…", name)
    return name if len(name) <= MAX_LENGTH else f"{name[: MAX_LENGTH // 2]}…{name[-(MAX_LENGTH // 2 - 1) :]}"
