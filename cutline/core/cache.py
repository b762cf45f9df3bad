"""The folder of caches: what is kept between commands and can be computed again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """The folder of caches: $CUTLINE_CACHE, else $XDG_CACHE_HOME/cutline, else ~/.cache/cutline."""
    if folder := os.environ.get("CUTLINE_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cutline"
