"""Model families: a folder in which each file is one family, found by its name. Listing them imports nothing."""

from __future__ import annotations

import logging
from pathlib import Path

# peft imports bitsandbytes wherever it is installed, and that regrets a kernel which nothing here asks for
logging.getLogger("bitsandbytes.backends").setLevel(logging.ERROR)

_NOT_FAMILIES = {"__init__", "base", "settings", "open", "image_policy", "unsupported"}


def names() -> list[str]:
    """The families there are."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in _NOT_FAMILIES)
