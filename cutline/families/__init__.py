"""Model families: a folder in which each file is one family, found by its name. Listing them imports nothing."""

from __future__ import annotations

from pathlib import Path

_NOT_FAMILIES = {"__init__", "base", "settings", "open"}


def names() -> list[str]:
    """The families there are."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in _NOT_FAMILIES)
