"""Where what can be computed again is kept between commands."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """Where caches go: $CUTLINE_CACHE, else $XDG_CACHE_HOME/cutline, else ~/.cache/cutline."""
    if given := os.environ.get("CUTLINE_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cutline"
