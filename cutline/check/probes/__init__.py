"""The probes of ``cutline check``: one module each.

Every file of this folder that defines ``STAGE`` is a probe. Another package adds its own as an entry point of the
group ``cutline.probes``. Listing the names imports nothing.

A probe is a module with

    STAGE    one of STAGES; the stages run in this order, and probes of "training" change the model's weights
    TITLE    the property that the probe checks, in a few words
    WHY      what happens to a run without that property, in one sentence
    AFTER    names of probes whose failure explains this one's: if one of them failed, this one is not judged
    probe    a function that takes a ProbeSubject and returns a ProbeResult
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
