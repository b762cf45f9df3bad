"""Maximum likelihood: the negative log-likelihood of each caption token and the end token, in nats a token."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field

from cutline.core.config import Section
from cutline.train.objective import CaptionObjective, Step

if TYPE_CHECKING:
    from torch import Tensor

    from cutline.families.base import Batch, Family


class CaptionsSettings(Section):
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of each target that is spread evenly over the vocabulary"
    )


class Captions(CaptionObjective):
    """The sum over the label tokens of a step, divided by their number: accumulation changes nothing."""

    Settings = CaptionsSettings
    section = ""
    settings: CaptionsSettings

    def loss(self, family: Family, batch: Batch, step: Step) -> Tensor:
        result = family(batch, label_smoothing=self.settings.label_smoothing if family.training else 0.0)
        tokens = result.tokens if step.tokens is None else step.tokens
        loss: Tensor = (result.nll + result.penalty) / tokens
        return loss * step.scale if step.tokens is not None and step.scale != 1 else loss

    def least_loss(self, vocabulary: int) -> float:
        """The entropy of a smoothed label."""
        smoothing = self.settings.label_smoothing
        if not smoothing:
            return 0.0
        other = smoothing / vocabulary
        right = 1 - smoothing + other
        return -(right * math.log(right) + (vocabulary - 1) * other * math.log(other))
