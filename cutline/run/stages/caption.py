"""caption: a split of the dataset is captioned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cutline.run.stage import Stage
from cutline.run.stages.train import Train

if TYPE_CHECKING:
    from cutline.run.context import RunContext
    from cutline.run.recipe import Recipe

PREDICTIONS = "predictions.jsonl"


class Caption(Stage):
    """Leaves ``predictions.jsonl``, to which every batch is appended."""

    name = "caption"
    outputs = (PREDICTIONS, f"{PREDICTIONS}.made-by")
    purpose = "captions"
    opens_model = True

    def needs(self, recipe: Recipe) -> Sequence[Stage]:
        return (Train(),) if recipe.train else ()

    def made_from(self, context: RunContext) -> str:
        return context.captions_fingerprint()

    def work(self, context: RunContext) -> Mapping[str, Any]:
        from cutline.caption.files import PredictionFile
        from cutline.caption.job import CaptionJob

        family = context.open_captioner()
        file = PredictionFile(context.folder / PREDICTIONS, {"made_from": self.made_from(context)})
        job = CaptionJob(file, context.dataset().split(context.split))
        with context.bars(f"captioning {context.split}") as progress:
            predictions = job.run(family, context.recipe.generate, progress)
        failed = sum(prediction.status == "failed" for prediction in predictions.values())
        return {"split": context.split, "images": len(predictions), "failed": failed}
