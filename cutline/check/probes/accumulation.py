"""Accumulating the gradients of small batches gives the same step as one large batch."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor
from transformers import TrainerCallback

from cutline.check.result import ProbeResult, failed, not_applicable, passed
from cutline.check.subject import ProbeSubject
from cutline.train.arguments import arguments
from cutline.train.captioner import CaptionLearner
from cutline.train.examples import Collator, Examples
from cutline.train.objective import Context
from cutline.train.trainer import LearnerTrainer

STAGE = "training"
TITLE = "accumulated small batches equal one large batch"
WHY = "A mean of batch means gives short captions more weight, so results depend on the batch size."
AFTER = ("trained_tensors_move", "batch_loss")


class _GradientRecorder(TrainerCallback):
    """Records the gradients of the only step and drops them, so that no weight changes."""

    def __init__(self) -> None:
        self.gradients: dict[str, Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                self.gradients[name] = parameter.grad.detach().float().cpu().clone()
                parameter.grad = None


class _WithoutDropout(CaptionLearner):
    """Stays in evaluation mode: with dropout, two computations of one gradient would differ."""

    def train(self, mode: bool = True) -> Self:
        return super().train(False)


def probe(subject: ProbeSubject) -> ProbeResult:
    if subject.train is None:
        return not_applicable("the recipe trains nothing")
    assert subject.parts  # accessing it freezes and opens the parts
    count = len(subject.samples)
    large, small = _gradients(subject, count, 1), _gradients(subject, 1, count)
    norm = torch.stack([gradient.norm() for gradient in large.values()]).norm()
    distance = torch.stack([(gradient - small[name]).norm() for name, gradient in large.items()]).norm()
    difference = float(distance / norm)
    if difference > 10 * subject.tolerance:
        return failed(
            f"the gradient of {count} accumulated captions differs from that of one batch by {difference:.1g} "
            "of its norm",
            "Divide the summed loss by the number of label tokens in the whole step.",
        )
    return passed(f"the gradients of {count} batches of 1 and of 1 batch of {count} agree to {difference:.1g}")


def _gradients(subject: ProbeSubject, batch_size: int, accumulation_steps: int) -> dict[str, Tensor]:
    """The gradient of one step over all samples, as training computes it but without dropout."""
    assert subject.train is not None
    family = subject.family
    changes: dict[str, Any] = {
        "batch_size": batch_size,
        "gradient_accumulation_steps": accumulation_steps,
        "max_steps": 1,
        "optimizer": "sgd",
        "report_to": [],
        "dataloader_num_workers": 0,
        "eval_steps": 1_000_000_000,
        "part_lr": {},
        "horizontal_flip": False,
        "drop_context": 0.0,
    }
    settings = subject.train.model_copy(update=subject.train.without_later_objectives() | changes)
    args = arguments(settings, subject.scratch / "accumulation", family.device, 0, None)
    args.save_strategy = args.eval_strategy = "no"
    args.max_grad_norm = args.weight_decay = 0.0
    recorder = _GradientRecorder()
    trainer = LearnerTrainer(
        _WithoutDropout(settings, Context(family, subject.samples)),
        None,
        settings,
        Examples(subject.samples, 1),
        None,
        args=args,
        data_collator=Collator(family, None),
        callbacks=[recorder],
    )
    trainer.train()
    family.eval()
    return recorder.gradients
