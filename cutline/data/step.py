"""What a preparation step is: its module's members, where it works, and how it drops a sample.

``cutline/data/steps/`` holds the steps, a file each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from cutline.core.config import Section
from cutline.core.records import Sample

if TYPE_CHECKING:
    from cutline.data.image_store import ImageStore

Phase = Literal["reading", "images", "checked", "end"]
PHASES: tuple[Phase, ...] = ("reading", "images", "checked", "end")


@dataclass(frozen=True, slots=True)
class Drop:
    """A sample that a step takes out, and why.

    Attributes:
        reason: a key of the step's ``REASONS``.
        detail: what exactly, in a few words.
    """

    reason: str
    detail: str


#: An image's path and its captions → one score a caption, higher is better.
Scorer = Callable[[str, Sequence[str]], Sequence[float]]

#: A checkpoint's folder or name → what scores captions with it.
OpenScorer = Callable[[str], Scorer]


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where a step works.

    Attributes:
        folder: of the dataset.
        store: stores images in it.
        scorer: opens the model that the step ``filter`` scores captions with; None where no model can be opened.
    """

    folder: Path
    store: ImageStore
    scorer: OpenScorer | None = None


Step = Callable[[Sample], Sample | Drop]


class StepModule(Protocol):
    DESCRIPTION: str
    PHASE: Phase
    ORDER: int
    REASONS: dict[str, str]
    SETTINGS: type[Section]

    @staticmethod
    def open(settings: Any, workspace: Workspace) -> Step: ...
