"""The probes: each file that defines one is a probe; other packages add theirs as entry points ``cutline.probes``.

Listing them imports nothing.

A probe is a module with

    STAGE    what it looks at, one of STAGES; later ones are made later, and those of training change weights
    TITLE    what it makes sure of, in a few words
    WHY      what happens to people whose run fails it, in a sentence
    AFTER    names of probes whose failure would explain this one's; it isn't judged when one of them failed
    probe    a function that takes a Subject and returns a Finding
"""

from __future__ import annotations

from collections.abc import Callable

from cutline.core.errors import RecipeError
from cutline.core.plugins import Plugins

STAGES = ("data", "labels", "batches", "training")

PLUGINS = Plugins(
    "probes",
    noun="probe",
    package=__name__,
    defines=r"^STAGE\b",
    required={"STAGE": STAGES, "TITLE": str, "WHY": str, "AFTER": tuple, "probe": Callable},
    error=RecipeError,
)


def names() -> list[str]:
    """The names of all probes."""
    return list(PLUGINS.names())
