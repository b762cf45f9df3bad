"""The probes: each file is one, found by its name. Listing them imports nothing.

A probe is a module with

    STAGE    what it looks at, one of STAGES; later ones are made later, and those of training change weights
    TITLE    what it makes sure of, in a few words
    WHY      what happens to people whose run fails it, in a sentence
    AFTER    names of probes whose failure would explain this one's; it isn't judged when one of them failed
    probe    a function that takes a Subject and returns what it found
"""

from __future__ import annotations

from pathlib import Path

STAGES = ("data", "labels", "batches", "training")


def names() -> list[str]:
    """The probes there are."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")
