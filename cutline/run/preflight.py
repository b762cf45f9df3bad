"""Checks of the prepared data, before hours of training or captioning: is everything there that the stages need?"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from cutline.core.errors import CutlineError, DataError
from cutline.data.dataset import Dataset, captioned_split
from cutline.run.recipe import Recipe

if TYPE_CHECKING:
    from cutline.core.records import Sample

_ADD_CONTEXT = "Name its columns in [data.columns] context, or add [data.steps.context]"


def check_data(recipe: Recipe, dataset: Dataset, split: str, stages: Collection[str], tiny: bool = False) -> None:
    """Checks what the stages need of the data.

    Args:
        dataset: the prepared dataset, without what bootstrapping would add.
        split: the split that is captioned; in a recipe for retrieval, the one that is searched.
        stages: the names of the stages to come.
        tiny: a rehearsal, in which drawn shapes without context may replace the data.

    Raises:
        CutlineError: a stage can't be done with these data.
    """
    if "train" in stages and recipe.train:
        _training(recipe, dataset, tiny)
    if "retrieve" in stages and not any(dataset.split(split).column("captions")):
        raise DataError(f"No image of {split} has a caption to search for.", "Give it captions.")
    if {"caption", "score", "ablate"} & set(stages):
        wanted = dataset.split(split)
        if "score" in stages and not any(wanted.column("captions")):
            raise CutlineError(f"No image of {split} has a caption to score against.", "Leave score out of --only.")
        if "ablate" in stages and recipe.ablation:
            _ablation(recipe, list(wanted), tiny)


def _training(recipe: Recipe, dataset: Dataset, tiny: bool) -> None:
    if recipe.bootstrap:  # the web images may be all that is trained on
        captioned_split(dataset, "val")
        return
    training = captioned_split(dataset, "train")
    captioned_split(dataset, "val")
    asked = recipe.train and recipe.train.drop_context
    if asked and not tiny and not any(context != "{}" for context in training.column("context")):
        raise CutlineError(
            f"[train] drop_context = {asked}: no training image has context.",
            f"{_ADD_CONTEXT}, or leave drop_context out.",
        )


def _ablation(recipe: Recipe, samples: list[Sample], tiny: bool) -> None:
    from cutline.ablation.ablate import refuse_prompt, refuse_samples
    from cutline.ablation.contexts import changed
    from cutline.data.context.named_entities import Recogniser
    from cutline.families.open import prompt_of

    settings = recipe.ablation
    assert settings is not None
    if not tiny:  # a miniature has the prompt of its family
        refuse_prompt(prompt_of(recipe.model))
    refuse_samples(samples)
    if "shuffled" in settings.conditions:  # which needs images of several groups
        changed("shuffled", samples, lambda sample: sample, recipe.score.seed)
    step = recipe.data.steps.chosen("checked").get("context")
    for model in {settings.names, step.model if step and "oracle" in settings.conditions else ""} - {""}:
        Recogniser(model).close()
