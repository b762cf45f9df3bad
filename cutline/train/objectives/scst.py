"""Self-critical sequence training: captions are sampled from the model, and those with a higher CIDEr become likelier.

Source: Rennie et al. 2017, arXiv:1612.00563; the baseline is the mean reward of an image's other samples, after Luo
2020, arXiv:2003.09971. It optimises the very score that captions are compared by, so a CIDEr reached this way says more
about CIDEr than about captions: look at the other scores and at the captions too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from cutline.core.config import Section
from cutline.core.records import Sample
from cutline.train.objective import CaptionObjective, Context, Step

if TYPE_CHECKING:
    from torch import Tensor

    from cutline.families.base import Batch, Family


class ScstSettings(Section):
    """``[train.scst]``."""

    start_epoch: float = Field(ge=0, description="epochs of the usual training before the first self-critical step")
    lr: float = Field(1e-4, gt=0, description="learning rate of self-critical steps, falling to 0; keep it low")
    samples: int = Field(5, ge=2, description="captions sampled for each image of a self-critical step")
    interpolation: float = Field(
        1.0,
        gt=0,
        le=1,
        description="weights that are validated and saved: 0 stands for those before the first self-critical step, 1 "
        "for the current ones, and what is between for a linear interpolation",
    )


class Scst(CaptionObjective):
    """Replaces the usual loss from ``start_epoch`` on, with a lower learning rate: at the usual one, captions that are
    worse than others of the same image are pushed away without end."""

    Settings = ScstSettings
    description = "finish with self-critical training, which rewards the CIDEr of sampled captions"
    alone = True
    settings: ScstSettings

    def __init__(self, settings: ScstSettings, context: Context):
        super().__init__(settings, context)
        from cutline.train.cider_reward import CiderReward
        from cutline.train.weight_interpolation import WeightInterpolation

        self.start = round(settings.start_epoch * context.steps_per_epoch)
        self.lr = settings.lr
        self.reward = CiderReward(context.samples)
        self.interpolation = (
            WeightInterpolation(context.family, settings.interpolation, self.start)
            if settings.interpolation < 1
            else None
        )

    @classmethod
    def rehearsed(cls, settings: ScstSettings) -> dict[str, Any]:
        return {"start_epoch": 0.05, "samples": 2}

    def batch(self, batch: Batch, samples: Callable[[], Sequence[Sample]]) -> Batch:
        """Sampled captions as targets, with ``weights`` [R]: how much higher the CIDEr of each caption is than that of
        the image's other samples; negative weights make a caption less likely."""
        import torch

        family, count = self.context.family, self.settings.samples
        images = samples()
        was_training = family.training
        family.eval()
        features = self.context.cache.get(images) if self.context.cache else None
        generated = self._sample(family.collate(images, with_targets=False, features=features))
        family.train(was_training)
        captions = [generation.text for generation in generated]
        repeated = [sample for sample in images for _ in range(count)]
        rewards = torch.tensor(self.reward(repeated, captions)).view(len(images), count)
        others = (rewards.sum(1, keepdim=True) - rewards) / (count - 1)
        sampled = [
            replace(sample, captions=tuple(captions[index * count : (index + 1) * count]))
            for index, sample in enumerate(images)
        ]
        targets = family.collate(sampled, with_targets=True, features=features)
        # a caption that was cut at the length limit never ended, and must not be taught that it did
        ended = torch.tensor([float(generation.finished) for generation in generated])
        targets["weights"] = (rewards - others).flatten() * ended
        return targets

    def _sample(self, batch: Batch) -> Any:
        from cutline.families.settings import GenerateSettings

        family = self.context.family
        settings = GenerateSettings(max_new_tokens=self.context.max_new_tokens, do_sample=True)
        batch = {name: tensor.to(family.device) for name, tensor in batch.items()}
        with self.context.precision():
            return family.generate(batch, settings, num_return_sequences=self.settings.samples)

    def loss(self, family: Family, batch: Batch, step: Step) -> Tensor:
        result = family(batch)
        loss: Tensor = result.nll / result.tokens / step.batches
        return loss

    def callbacks(self) -> Sequence[Any]:
        return [self.interpolation] if self.interpolation else []

    def validated_weights(self) -> AbstractContextManager[None]:
        return self.interpolation.in_place() if self.interpolation else nullcontext()

    def finish(self) -> None:
        if self.interpolation:
            self.interpolation.take()

    def save(self, checkpoint: Path) -> None:
        if self.interpolation:
            self.interpolation.save(checkpoint)

    def load(self, checkpoint: Path) -> None:
        if self.interpolation:
            self.interpolation.load(checkpoint)
