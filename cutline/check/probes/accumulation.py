"""Small batches whose gradients are added make the step that one large batch makes."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor
from transformers import TrainerCallback

from cutline.check.subject import Subject
from cutline.check.verdict import Finding, failed, not_applicable, passed
from cutline.train.arguments import arguments
from cutline.train.captioner import Captioner
from cutline.train.examples import Collator, Examples
from cutline.train.objective import Context
from cutline.train.trainer import LearnerTrainer

STAGE = "training"
TITLE = "accumulated batches are one large batch"
WHY = "A mean of the batches' means gives short captions more weight, and the result depends on the batch size."
AFTER = ("trained_tensors_move", "batch_loss")


class _Gradients(TrainerCallback):
    """Keeps the gradients of the only step and drops them before they change anything."""

    def __init__(self) -> None:
        self.found: dict[str, Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                self.found[name] = parameter.grad.detach().float().cpu().clone()
                parameter.grad = None


class _WithoutDropout(Captioner):
    """Stays in evaluation mode, so that two ways of computing the same gradient can be compared."""

    def train(self, mode: bool = True) -> Self:
        return super().train(False)


def probe(subject: Subject) -> Finding:
    if subject.train is None:
        return not_applicable("the recipe trains nothing")
    assert subject.parts  # opened
    count = len(subject.samples)
    large, small = _gradients(subject, count, 1), _gradients(subject, 1, count)
    norm = torch.stack([gradient.norm() for gradient in large.values()]).norm()
    apart = torch.stack([(gradient - small[name]).norm() for name, gradient in large.items()]).norm() / norm
    if float(apart) > 10 * subject.tolerance:
        return failed(
            f"the gradient of {count} accumulated captions is {float(apart):.1g} away from that of one batch",
            "Divide the summed loss by the number of label tokens of the whole step.",
        )
    return passed(f"the gradients of {count} × 1 and 1 × {count} captions agree to {float(apart):.1g}")


def _gradients(subject: Subject, batch_size: int, accumulate: int) -> dict[str, Tensor]:
    """The gradient of one step over all samples, as the training computes it, without dropout."""
    assert subject.train is not None
    family = subject.family
    changes: dict[str, Any] = {
        "batch_size": batch_size,
        "gradient_accumulation_steps": accumulate,
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
    seen = _Gradients()
    trainer = LearnerTrainer(
        _WithoutDropout(settings, Context(family, subject.samples)),
        None,
        settings,
        Examples(subject.samples, 1),
        None,
        args=args,
        data_collator=Collator(family, None),
        callbacks=[seen],
    )
    trainer.train()
    family.eval()
    return seen.found
