"""``--tiny``: a recipe cut down to a rehearsal."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutline.core import ranks
from cutline.data.settings import DataSettings
from cutline.data.steps import Steps

if TYPE_CHECKING:
    from cutline.bootstrap.settings import BootstrapSettings
    from cutline.run.recipe import Recipe

logger = logging.getLogger(__name__)


def rehearsal(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe, cut down to what a CPU does in a minute. Drawn shapes replace data that doesn't exist.

    A recipe that is already cut down is unchanged, so that a tiny run continues from its own ``recipe.toml``.
    """
    changes = {"max_samples": 12, "dataset": None, "steps": _without_models(recipe.data.steps)}
    data = recipe.data.model_copy(update=changes)
    ablation = recipe.ablation and recipe.ablation.model_copy(update={"names": ""})
    if data.source is None or not Path(data.source).exists():
        from cutline.images import shapes

        logger.info(f"tiny: {data.source} doesn't exist; drawn shapes replace it")
        drawn = folder / "shapes"
        if ranks.is_main_process() and not (drawn / "captions.csv").exists():
            shapes.draw(drawn, train=12, val=12, test=12)
        data, ablation = DataSettings(source=str(drawn), max_samples=12), None  # shapes have no context
    train = recipe.train and recipe.train.rehearsed()
    generate = recipe.generate.model_copy(
        update={
            "max_new_tokens": 12,
            "num_beams": min(2, recipe.generate.num_beams),
            "batch_size": 4,
            "split": "auto",
        }
    )
    score = recipe.score.tiny()
    changed: dict[str, Any] = {"data": data, "train": train, "generate": generate, "score": score, "ablation": ablation}
    changed |= {"bootstrap": _bootstrap(recipe.bootstrap, folder)}
    return recipe.model_copy(update=changed)


def _without_models(steps: Steps) -> Steps:
    """The steps without the filter's model: a rehearsal opens no checkpoint, and scores of a miniature mean nothing."""
    chosen = steps.chosen().get("filter")
    if chosen is None or not chosen.model:
        return steps
    logger.info(f"tiny: captions are not scored by {chosen.model}")
    return steps.model_copy(update={"filter": chosen.model_copy(update={"model": ""})})


def _bootstrap(settings: BootstrapSettings | None, folder: Path) -> BootstrapSettings | None:
    """Keeps the better half of the captions: the scores of a random miniature have no useful threshold."""
    if settings is None or settings.web is None:
        return settings
    web = settings.web.model_copy(update={"max_samples": 12, "dataset": None})
    if web.source is None or not Path(web.source).exists():
        from cutline.images import shapes

        drawn = folder / "web-shapes"
        if ranks.is_main_process() and not (drawn / "captions.csv").exists():
            shapes.draw(drawn, train=12, val=0, test=0, seed=1)
        web = DataSettings(source=str(drawn), max_samples=12)
    generate = settings.generate.model_copy(update={"max_new_tokens": 12, "batch_size": 4})
    keep = settings.keep.model_copy(update={"share": 0.5})
    return settings.model_copy(update={"web": web, "generate": generate, "keep": keep})
