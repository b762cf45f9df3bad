"""Ids short enough to be read: as much of each as tells them apart."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: Characters of an id that a line has room for.
MOST = 28

_HASH = re.compile(r"[0-9a-f]{20,}", re.IGNORECASE)


def short_names(ids: Sequence[str]) -> list[str]:
    """Each id without the folders that all of them are in, without most of a hash, and without a long one's middle.

    Where two different ids would come out alike, both are given whole.
    """
    folders = [id.split("/")[:-1] for id in ids]
    shared = 0
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        shared += 1
    names = [_short("/".join(id.split("/")[shared:])) for id in ids]
    meant: dict[str, set[str]] = {}
    for id, name in zip(ids, names, strict=True):
        meant.setdefault(name, set()).add(id)
    return [name if len(meant[name]) == 1 else id for id, name in zip(ids, names, strict=True)]


def _short(name: str) -> str:
    name = _HASH.sub(lambda found: f"{found[0][:8]}…", name)
    return name if len(name) <= MOST else f"{name[: MOST // 2]}…{name[-(MOST // 2 - 1) :]}"
