"""The result of a probe."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["passed", "failed", "not applicable", "not judged"]


@dataclass(frozen=True)
class ProbeResult:
    """What a probe returns.

    Attributes:
        status: "not applicable" if the recipe has nothing of this kind; "not judged" if the probe can't decide.
        message: the measurement or the mistake, in one sentence.
        remedy: how to fix a failure; "" otherwise.
    """

    status: Status
    message: str
    remedy: str = ""


def passed(message: str) -> ProbeResult:
    return ProbeResult("passed", message)


def failed(message: str, remedy: str) -> ProbeResult:
    return ProbeResult("failed", message, remedy)


def not_applicable(message: str) -> ProbeResult:
    return ProbeResult("not applicable", message)


def not_judged(message: str) -> ProbeResult:
    return ProbeResult("not judged", message)


@dataclass(frozen=True, kw_only=True)
class ProbeReport:
    """A probe's result together with the probe's own description.

    Attributes:
        probe: its name, which is that of a file in ``cutline/check/probes`` or of an entry point.
        stage: the stage that it belongs to: data, labels, batches or training.
        title: the property that it checks.
        status, message, remedy: as in ``ProbeResult``.
        why: why the property matters.
        seconds: how long it took.
    """

    probe: str
    stage: str
    title: str
    status: Status
    message: str
    why: str
    remedy: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
