"""The same samples with another context in their prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from cutline.ablation.settings import Condition
from cutline.core.errors import DataError
from cutline.core.records import Sample
from cutline.data.inspect.contexts import Names
from cutline.data.steps.context import ContextSettings as ContextSettings
from cutline.data.steps.context import ContextStep
from cutline.metrics.baselines import derangement

#: Replaces a sample's context by one that is made from its references.
Oracle = Callable[[Sample], Sample]


def changed(condition: Condition, samples: Sequence[Sample], oracle: Oracle, seed: int) -> list[Sample]:
    """The samples under a condition, in their order.

    Args:
        samples: all images that are captioned, with their own context.
        oracle: replaces a sample's context by the oracle's.
        seed: seed for shuffling the contexts; no image gets the context of its own group.

    Raises:
        DataError: one group holds more than half of the images, so contexts can't be shuffled.
    """
    if condition == "without":
        return [replace(sample, context={}) for sample in samples]
    if condition == "oracle":
        return [oracle(sample) for sample in samples]
    others = derangement([sample.group or sample.id for sample in samples], seed)
    if others is None:
        raise DataError(
            "One group holds more than half of the images, so contexts can't be shuffled between groups.",
            'Leave "shuffled" out of [ablation] conditions.',
        )
    return [replace(sample, context=samples[other].context) for sample, other in zip(samples, others, strict=True)]


def named(names: Names) -> Oracle:
    """An oracle that replaces the context by the names in the references."""

    def give(sample: Sample) -> Sample:
        unique = dict.fromkeys(name for caption in sample.captions for name in names(caption))
        field = next(iter(sample.context), "context")
        return replace(sample, context={field: "; ".join(unique)} if unique else {})

    return give


def stepped(settings: ContextSettings) -> Oracle:
    """An oracle in the format of the context step: the step's line, made from the references as well.

    URLs and the photo's metadata still come first, as in the step.
    """
    allowed = settings.model_copy(update={"texts": ["caption"], "oracle": True})
    from cutline.data.context.named_entities import Recogniser

    step = ContextStep(allowed, Recogniser(allowed.model))

    def give(sample: Sample) -> Sample:
        others = {field: text for field, text in sample.context.items() if field != "context"}
        return step(replace(sample, context=others))

    return give
