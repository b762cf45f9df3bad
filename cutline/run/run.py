"""A run: everything that a recipe asks for, stage by stage."""

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

#: In this order. A recipe has those that apply to it.
_ALL: tuple[Stage, ...] = (
    Prepare(), Bootstrap(), Train(), Caption(), Score(), Ablate(), Retrieve(), Report(),
)  # fmt: skip
STAGES = tuple(stage.name for stage in _ALL)


class Run(RunContext):
    """One run of a recipe in its folder.

    Every stage leaves its outputs and a marker of what they were made from. A finished stage is skipped when that is
    unchanged, and an interrupted one resumes.
    """

    def __call__(self, stages: Collection[str] = STAGES) -> Evaluation | None:
        """Goes through the stages that the recipe has; returns the scores, if a stage makes some.

        Args:
            stages: names of the wanted ones.
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
        """Checks what the stages need of the prepared data, before hours of training.

        Raises:
            CutlineError: a stage can't be done with these data.
        """
        self._check_data(self._choose(stages))

    def _check_data(self, chosen: Sequence[Stage]) -> None:
        if any(stage.uses_split for stage in chosen):
            names = [stage.name for stage in chosen]
            check_data(self.recipe, self.own_dataset(), self.split, names, self.tiny)

    def _choose(self, stages: Collection[str]) -> list[Stage]:
        """The wanted stages that the recipe has.

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
                "Leave [train.retrieval] out." if self.recipe.for_retrieval else "Add [retrieve] or [train.retrieval]."
            )
            raise RecipeError(f"{wrong[0]}: this recipe is for {purpose}.", remedy)
        return [stage for stage in _ALL if stage.name in stages and stage.applies(self.recipe)]

    def _check_recipe(self, chosen: Sequence[Stage]) -> None:
        """Finds mistakes of the recipe before anything is done."""
        from cutline.metrics import find

        if self.recipe.train:
            find.higher_is_better(self.recipe.train.metric)  # raises where it is not one score
        if any(isinstance(stage, Score) for stage in chosen):
            self.recipe.score.check()
        if any(stage.opens_model for stage in chosen) and not (self.tiny or self.folder.stage(Prepare.name)):
            from cutline.families.open import family_of

            family_of(self.recipe.model)  # a model that isn't there is known before hours of preparing


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
        recipe: a TOML file. The ``recipe.toml`` in a run folder continues that run, as a tiny one where it is tiny.
        folder: the run folder; ``runs/<recipe>`` by default.
        overrides: ``section.key=value`` each.
        tiny, bars, set_threads: as for :class:`~cutline.run.context.RunContext`.
    """
    run_folder = folder or default_folder(recipe, tiny)
    if Path(recipe).resolve() == (run_folder / "recipe.toml").resolve():
        tiny = tiny or bool(RunFolder(run_folder).facts().get("tiny"))
    return Run(load(recipe, Recipe, overrides), run_folder, tiny=tiny, bars=bars, set_threads=set_threads)
