"""A stage of a run: skipped if it is finished and unchanged, otherwise started or resumed, then marked as finished."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from cutline.core import ranks
from cutline.core.errors import CutlineError

if TYPE_CHECKING:
    from cutline.metrics.evaluation import Evaluation
    from cutline.run.context import RunContext
    from cutline.run.recipe import Recipe

logger = logging.getLogger(__name__)


class Stage(ABC):
    """One stage; each has a file in ``cutline/run/stages/``.

    Attributes:
        name: what ``--only`` calls it.
        outputs: files and folders that it writes in the run folder; moved aside when the recipe changes.
        purpose: the recipes that have it: "captions", "retrieval", or "" for all.
        uses_split: whether it works on a split of the prepared dataset.
        opens_model: whether it opens the recipe's model.
        in_every_process: whether all processes of torchrun do it, or the first one alone.
    """

    name: ClassVar[str]
    outputs: ClassVar[tuple[str, ...]] = ()
    purpose: ClassVar[Literal["captions", "retrieval", ""]] = ""
    uses_split: ClassVar[bool] = True
    opens_model: ClassVar[bool] = False
    in_every_process: ClassVar[bool] = False

    def applies(self, recipe: Recipe) -> bool:
        """Whether the recipe has this stage."""
        return self.purpose in ("", "retrieval" if recipe.for_retrieval else "captions")

    def needs(self, recipe: Recipe) -> Sequence[Stage]:
        """The stages that must be finished, and unchanged, before this one."""
        return ()

    @abstractmethod
    def made_from(self, context: RunContext) -> str:
        """A fingerprint of everything that the outputs depend on."""

    @abstractmethod
    def work(self, context: RunContext) -> Mapping[str, Any]:
        """Writes the outputs, or resumes; returns facts for the stage's marker. Training runs in every process; the
        facts of the first one count."""

    def result(self, context: RunContext) -> Evaluation | None:
        """The scores of a finished stage that scores."""
        return None

    def __call__(self, context: RunContext) -> Evaluation | None:
        """Runs the stage unless it is finished.

        Raises:
            CutlineError: a stage that it needs is not finished.
        """
        made_from = self.made_from(context)
        if context.folder.is_finished(self.name, made_from):
            logger.info(f"{self.name}: already done")
            return self.result(context)
        for needed in self.needs(context.recipe):
            if not context.folder.is_finished(needed.name, needed.made_from(context)):
                raise CutlineError(
                    f"{self.name} needs the stage {needed.name}, which {context.folder.path} has not finished for "
                    "this recipe.",
                    f"Run it without --only, or with --only {needed.name},{self.name}.",
                )
        if ranks.is_main_process():
            context.begin(self.name, made_from, self.outputs)
        start = time.monotonic()
        facts = self.work(context)
        if not ranks.is_main_process():
            return None
        context.folder.finish(self.name, time.monotonic() - start, **facts)
        return self.result(context)
