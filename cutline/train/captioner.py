"""A family in training for captions: the losses of a batch of images with captions as targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cutline.core.records import Sample
from cutline.families.base import Batch
from cutline.train.examples import NOTES
from cutline.train.guards import not_finite
from cutline.train.learner import Learner, Output
from cutline.train.objective import CaptionObjective, Context, Step
from cutline.train.settings import TrainSettings


@dataclass
class CaptionChunk:
    """What one forward and backward pass is made of.

    Attributes:
        objective: its loss is computed.
        batch: its batch, on the model's device.
        step: the optimizer step.
    """

    objective: CaptionObjective
    batch: Batch
    step: Step


class CaptionLearner(Learner[CaptionObjective]):
    """Adds up the losses of the objectives that are active in a step; each has a pass of its own.

    Args:
        settings: the ``[train]`` section.
        context: the family and its samples.

    Raises:
        TrainingError: the family can't do what the settings ask for.
    """

    kind = CaptionObjective

    def __init__(self, settings: TrainSettings, context: Context):
        super().__init__(settings, context)
        self.model = context.family
        #: Callbacks of the Trainer and DeepSpeed read a model's configuration.
        self.config = context.family.config

    @property
    def usual_until(self) -> int | None:
        """The step from which the loss means something else; None: it never does."""
        return min((one.start for one in self.objectives if one.alone), default=None)

    def least_loss(self, vocabulary: int) -> float:
        """The smallest loss that is possible before ``usual_until``, in nats a token."""
        return sum(one.weight * one.least_loss(vocabulary) for one in self.objectives if not one.alone)

    def active(self, step: int) -> list[CaptionObjective]:
        """The objectives of a step."""
        begun = [one for one in self.objectives if one.start <= step]
        return [one for one in begun if one.alone][-1:] or begun

    def chunks(self, batch: Any, samples: Callable[[], Sequence[Sample]], step: Step) -> Sequence[CaptionChunk]:
        chunks = []
        for objective in self.active(step.number):
            own = objective.batch(batch, samples)
            own = {name: tensor.to(self.family.device) for name, tensor in own.items() if name not in NOTES}
            chunks.append(CaptionChunk(objective, own, step))
        return chunks

    def forward(self, chunk: CaptionChunk) -> Output:
        objective = chunk.objective
        share = objective.loss(self.model, chunk.batch, chunk.step)
        loss = objective.weight * share if objective.weight != 1 else share
        value = loss.detach()
        if self.training and not torch.isfinite(value):
            raise not_finite(self.family, chunk.batch, float(value), chunk.step.number)
        return Output(loss, value, {objective.name: share.detach() * chunk.step.batches})

    def trial(self, batch: Any) -> None:
        batch = {name: tensor.to(self.family.device) for name, tensor in batch.items() if name not in NOTES}
        self.model(batch).nll.backward()
