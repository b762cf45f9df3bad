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

#: A sample → the same one, with the context that only its references could give.
Oracle = Callable[[Sample], Sample]


def changed(condition: Condition, samples: Sequence[Sample], oracle: Oracle, seed: int) -> list[Sample]:
    """The samples under a condition, in their order.

    Args:
        samples: all images that are captioned, with their own context.
        oracle: gives a sample its oracle's context.
        seed: of who gets whose context when it is shuffled; never one of the own group.

    Raises:
        DataError: one group holds more than half of the images, so there is no other context to give.
    """
    if condition == "without":
        return [replace(sample, context={}) for sample in samples]
    if condition == "oracle":
        return [oracle(sample) for sample in samples]
    others = derangement([sample.group or sample.id for sample in samples], seed)
    if others is None:
        raise DataError(
            "One group holds more than half of the images: there is no other image's context to give.",
            'Leave "shuffled" out of [ablation] conditions.',
        )
    return [replace(sample, context=samples[other].context) for sample, other in zip(samples, others, strict=True)]


def named(names: Names) -> Oracle:
    """An oracle that puts the names in a sample's references where its context stands."""

    def give(sample: Sample) -> Sample:
        found = dict.fromkeys(name for caption in sample.captions for name in names(caption))
        field = next(iter(sample.context), "context")
        return replace(sample, context={field: "; ".join(found)} if found else {})

    return give


def stepped(settings: ContextSettings) -> Oracle:
    """An oracle in the form that the context step gave the context: its line, made from the references as well.

    Addresses and the photograph's notes still come first, as they do in the step.
    """
    allowed = settings.model_copy(update={"texts": ["caption"], "oracle": True})
    from cutline.data.context.named_entities import Recogniser

    step = ContextStep(allowed, Recogniser(allowed.model))

    def give(sample: Sample) -> Sample:
        others = {field: text for field, text in sample.context.items() if field != "context"}
        return step(replace(sample, context=others))

    return give
