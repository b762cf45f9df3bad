"""Checks, before hours of training or captioning, that the prepared data have everything that the stages need."""

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
    """Checks that the data have what the stages need.

    Args:
        dataset: the prepared dataset, without what bootstrapping would add.
        split: the split that is captioned; in a recipe for retrieval, the one that is searched.
        stages: names of the stages that will run.
        tiny: a rehearsal, whose data may be drawn shapes without context.

    Raises:
        CutlineError: a stage can't run on these data.
    """
    if "train" in stages and recipe.train:
        _training(recipe, dataset, tiny)
    if "retrieve" in stages and not any(dataset.split(split).column("captions")):
        raise DataError(
            f"No image of {split} has a caption to search for.", "Add captions, or choose another [retrieve] split."
        )
    if {"caption", "score", "ablate"} & set(stages):
        samples = dataset.split(split)
        if "score" in stages and not any(samples.column("captions")):
            raise CutlineError(f"No image of {split} has a caption to score against.", "Leave out score in --only.")
        if "ablate" in stages and recipe.ablation:
            _ablation(recipe, list(samples), tiny)


def _training(recipe: Recipe, dataset: Dataset, tiny: bool) -> None:
    if recipe.bootstrap:  # the web images may be all that is trained on
        captioned_split(dataset, "val")
        return
    training = captioned_split(dataset, "train")
    captioned_split(dataset, "val")
    drop_context = recipe.train and recipe.train.drop_context
    if drop_context and not tiny and not any(context != "{}" for context in training.column("context")):
        raise CutlineError(
            f"[train] drop_context = {drop_context}: no training image has context.",
            f"{_ADD_CONTEXT}, or leave out drop_context.",
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
