"""retrieve: recall of the trained model or the checkpoint, from image to text and from text to image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cutline.core.fingerprint import fingerprint
from cutline.core.run_folder import RETRIEVAL
from cutline.retrieve.settings import RetrieveSettings
from cutline.run.stage import Stage
from cutline.run.stages.train import Train

if TYPE_CHECKING:
    from cutline.metrics.evaluation import Evaluation
    from cutline.run.context import RunContext
    from cutline.run.recipe import Recipe


class Retrieve(Stage):
    """Leaves ``retrieval/`` with scores, hits and the state of an interrupted evaluation."""

    name = "retrieve"
    outputs = (RETRIEVAL,)
    purpose = "retrieval"
    opens_model = True

    def needs(self, recipe: Recipe) -> Sequence[Stage]:
        return (Train(),) if recipe.train else ()

    def made_from(self, context: RunContext) -> str:
        settings = context.recipe.retrieve or RetrieveSettings()
        return fingerprint(context.training_fingerprint(), settings.model_dump(), context.split)

    def work(self, context: RunContext) -> Mapping[str, Any]:
        from cutline.families.common.retrieval import as_embedder
        from cutline.retrieve.evaluate import evaluate

        evaluation = evaluate(
            as_embedder(context.open_embedder()),
            list(context.dataset().split(context.split)),
            context.recipe.retrieve or RetrieveSettings(),
            context.folder / RETRIEVAL,
            {"made_from": self.made_from(context)},
            bars=context.bars,
        )
        context.count_look_at_test()
        return {"split": context.split, "images": evaluation.counts["images"]}

    def result(self, context: RunContext) -> Evaluation:
        from cutline.metrics.evaluation import Evaluation

        return Evaluation.load(context.folder / RETRIEVAL)
