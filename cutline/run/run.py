"""A run: the stages of a recipe, one after the other."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from cutline.core import ranks
from cutline.core.config import load, to_toml
from cutline.core.errors import RecipeError
from cutline.core.progress import Bars, silent
from cutline.core.run_folder import RunFolder
from cutline.core.threads import SetThreads, keep_threads
from cutline.run.context import RunContext
from cutline.run.preflight import check_data
from cutline.run.recipe import Recipe, default_folder
from cutline.run.stage import Stage
from cutline.run.stages.ablate import Ablate
from cutline.run.stages.bootstrap import Bootstrap
from cutline.run.stages.caption import Caption
from cutline.run.stages.prepare import Prepare
from cutline.run.stages.report import Report
from cutline.run.stages.retrieve import Retrieve
from cutline.run.stages.score import Score
from cutline.run.stages.train import Train

if TYPE_CHECKING:
    from cutline.metrics.evaluation import Evaluation

#: All stages in their order; a recipe has those that apply to it.
_ALL: tuple[Stage, ...] = (
    Prepare(),
    Bootstrap(),
    Train(),
    Caption(),
    Score(),
    Ablate(),
    Retrieve(),
    Report(),
)
STAGES = tuple(stage.name for stage in _ALL)


class Run(RunContext):
    """One run of a recipe in its folder.

    Every stage leaves its outputs and a marker with the fingerprint of its inputs. A finished stage is skipped while
    its inputs are unchanged; an interrupted one resumes.
    """

    def __call__(self, stages: Collection[str] = STAGES) -> Evaluation | None:
        """Runs the stages that the recipe has; returns the scores, if a stage computes some.

        Args:
            stages: names of the stages to run.
        """
        chosen = self._choose(stages)
        self._check_recipe(chosen)
        self.join_processes()
        try:
            with self.folder.locked() if ranks.is_main_process() else nullcontext():
                return self._go_through(chosen)
        finally:
            self.leave_processes()

    def _go_through(self, chosen: Sequence[Stage]) -> Evaluation | None:
        first = ranks.is_main_process()
        if first:
            self.folder.describe(to_toml(self.recipe), self.recipe.seed)
            self.folder.note(tiny=self.tiny)
        evaluation = None
        data_checked = not first
        for stage in chosen:
            if not isinstance(stage, Prepare) and not data_checked:
                self._check_data([one for one in chosen if not self.folder.stage(one.name).get("finished")])
                data_checked = True
            if stage.in_every_process:
                self.wait()  # for the first process, which did the stages before
            if first or stage.in_every_process:
                evaluation = stage(self) or evaluation
        return evaluation

    def check_data(self, stages: Collection[str] = STAGES) -> None:
        """Checks, before hours of training, that the prepared data have what the stages need.

        Raises:
            CutlineError: a stage can't run on these data.
        """
        self._check_data(self._choose(stages))

    def _check_data(self, chosen: Sequence[Stage]) -> None:
        if any(stage.uses_split for stage in chosen):
            names = [stage.name for stage in chosen]
            check_data(self.recipe, self.own_dataset(), self.split, names, self.tiny)

    def _choose(self, stages: Collection[str]) -> list[Stage]:
        """Those of the named stages that the recipe has.

        Raises:
            RecipeError: one is unknown, or belongs to another kind of recipe.
        """
        unknown = [name for name in stages if name not in STAGES]
        if unknown:
            raise RecipeError(f"There is no stage {unknown[0]!r}.", f"Stages: {', '.join(STAGES)}.")
        purpose = "retrieval" if self.recipe.for_retrieval else "captions"
        wrong = [stage.name for stage in _ALL if stage.name in stages and stage.purpose not in ("", purpose)]
        if wrong and tuple(stages) != STAGES:
            remedy = (
                "Leave out [train.retrieval]." if self.recipe.for_retrieval else "Add [retrieve] or [train.retrieval]."
            )
            raise RecipeError(f"{wrong[0]}: this recipe is for {purpose}.", remedy)
        return [stage for stage in _ALL if stage.name in stages and stage.applies(self.recipe)]

    def _check_recipe(self, chosen: Sequence[Stage]) -> None:
        """Finds mistakes in the recipe before any work."""
        from cutline.metrics import find

        if self.recipe.train:
            find.higher_is_better(self.recipe.train.metric)  # raises unless it is one score
        if any(isinstance(stage, Score) for stage in chosen):
            self.recipe.score.check()
        if any(stage.opens_model for stage in chosen) and not (self.tiny or self.folder.stage(Prepare.name)):
            from cutline.families.open import family_of

            family_of(self.recipe.model)  # raises for a model that doesn't exist, before hours of preparing


def open_run(
    recipe: str | Path,
    folder: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    tiny: bool = False,
    bars: Bars = silent,
    set_threads: SetThreads = keep_threads,
) -> Run:
    """The run of a recipe file.

    Args:
        recipe: a TOML file. The ``recipe.toml`` in a run folder continues that run, with --tiny if that was used.
        folder: the run folder; ``runs/<recipe>`` by default.
        overrides: ``section.key=value`` each.
        tiny, bars, set_threads: as for :class:`~cutline.run.context.RunContext`.
    """
    run_folder = folder or default_folder(recipe, tiny)
    if Path(recipe).resolve() == (run_folder / "recipe.toml").resolve():
        tiny = tiny or bool(RunFolder(run_folder).facts().get("tiny"))
    return Run(load(recipe, Recipe, overrides), run_folder, tiny=tiny, bars=bars, set_threads=set_threads)
