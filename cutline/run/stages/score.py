"""score: the captions are scored against the references of their split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cutline.core.errors import CutlineError
from cutline.core.fingerprint import fingerprint
from cutline.run.stage import Stage
from cutline.run.stages.caption import PREDICTIONS, Caption

if TYPE_CHECKING:
    from cutline.metrics.evaluation import Evaluation
    from cutline.run.context import RunContext
    from cutline.run.recipe import Recipe


class Score(Stage):
    """Leaves ``scores.json`` and ``per_image.jsonl``."""

    name = "score"
    outputs = ("scores.json", "per_image.jsonl")
    purpose = "captions"

    def needs(self, recipe: Recipe) -> Sequence[Stage]:
        return (Caption(),)

    def made_from(self, context: RunContext) -> str:
        return fingerprint(context.captions_fingerprint(), context.recipe.score.model_dump())

    def work(self, context: RunContext) -> Mapping[str, Any]:
        from cutline.caption.files import read
        from cutline.data.steps.context import is_oracle
        from cutline.metrics.evaluation import evaluate

        dataset = context.dataset()
        samples = [sample for sample in dataset.split(context.split) if sample.captions]
        if not samples:
            raise CutlineError(
                f"No image of {context.split} has a caption to score against.", "Leave out score in --only."
            )
        predictions = read(context.folder / PREDICTIONS)
        evaluation = evaluate(
            {sample.id: predictions[sample.id] for sample in samples},
            {sample.id: list(sample.captions) for sample in samples},
            training_captions=dataset.split("train").column("captions") if "train" in dataset.splits() else None,
            groups={sample.id: sample.group for sample in samples},
            settings=context.recipe.score,
            contexts={sample.id: " ".join(sample.context.values()) for sample in samples if sample.context},
            images={sample.id: sample.image for sample in samples},
            oracle=any(map(is_oracle, samples)),
            bars=context.bars,
        )
        evaluation.save(context.folder.path)
        context.count_look_at_test()
        return {"split": context.split}

    def result(self, context: RunContext) -> Evaluation:
        from cutline.metrics.evaluation import Evaluation

        return Evaluation.load(context.folder.path)
