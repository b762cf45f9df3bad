"""What a probe says, in plain words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["passed", "failed", "not applicable", "not judged"]


@dataclass(frozen=True)
class Finding:
    """What a probe found.

    Attributes:
        status: "not applicable": there is nothing to probe in this recipe; "not judged": it can't be told.
        what: what was seen, in a sentence.
        remedy: what to do about a failure; "" otherwise.
    """

    status: Status
    what: str
    remedy: str = ""


def passed(what: str) -> Finding:
    return Finding("passed", what)


def failed(what: str, remedy: str) -> Finding:
    return Finding("failed", what, remedy)


def not_applicable(what: str) -> Finding:
    return Finding("not applicable", what)


def not_judged(what: str) -> Finding:
    return Finding("not judged", what)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A finding with the probe that it is of.

    Attributes:
        probe: its name, a file in ``cutline/check/probes``.
        stage: what it looks at: data, labels, batches, training.
        title: what the probe makes sure of.
        why: why it matters.
        seconds: what it took.
    """

    probe: str
    stage: str
    title: str
    status: Status
    what: str
    why: str
    remedy: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
