"""train: the model is trained on the dataset, and its best checkpoint is saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cutline.core import ranks
from cutline.run.stage import Stage
from cutline.run.stages.bootstrap import Bootstrap

if TYPE_CHECKING:
    from cutline.run.context import RunContext
    from cutline.run.recipe import Recipe


class Train(Stage):
    """Leaves ``model/`` with the best checkpoint, and ``train/`` with the log and the checkpoints to resume from."""

    name = "train"
    outputs = ("train", "model")
    opens_model = True
    in_every_process = True

    def applies(self, recipe: Recipe) -> bool:
        return recipe.train is not None

    def needs(self, recipe: Recipe) -> Sequence[Stage]:
        return (Bootstrap(),) if recipe.bootstrap else ()

    def made_from(self, context: RunContext) -> str:
        return context.training_fingerprint()

    def work(self, context: RunContext) -> Mapping[str, Any]:
        from cutline.train.train import train

        context.wait()  # for the first process, which moves old outputs aside
        settings = context.recipe.train
        assert settings is not None
        family = context.open_family()
        facts = train(
            family,
            context.dataset(),
            settings,
            context.folder / "train",
            seed=context.recipe.seed,
            cache_root=context.folder / "cache" if context.tiny else None,
            bars=context.bars,
            set_threads=context.set_threads,
        )
        if ranks.is_main_process():
            family.generation = context.recipe.generate
            family.save(context.folder / "model")
        return facts
