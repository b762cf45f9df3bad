"""Small batches whose gradients are added make the step that one large batch makes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from cutline.check.subject import Subject
from cutline.check.verdict import Finding, failed, not_applicable, passed
from cutline.train.examples import Collator, Examples
from cutline.train.loop import CaptionTrainer
from cutline.train.train import arguments

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
    settings = subject.train.model_copy(
        update={"batch_size": batch_size, "gradient_accumulation_steps": accumulate, "max_steps": 1, "optimizer": "sgd",
                "report_to": [], "dataloader_num_workers": 0, "eval_steps": 1_000_000_000}
    )  # fmt: skip
    made = arguments(settings, subject.scratch / "accumulation", family.device, 0, choose=False)
    made.save_strategy = made.eval_strategy = "no"
    made.max_grad_norm = made.weight_decay = 0.0
    seen = _Gradients()
    trainer = CaptionTrainer(
        family,
        None,
        0.0,
        args=made,
        train_dataset=Examples(subject.samples, 1),
        data_collator=Collator(family, None),
        callbacks=[seen],
    )
    family.train = lambda mode=True: family  # type: ignore[method-assign]
    try:
        family.eval()
        trainer.train()
    finally:
        del family.train
    return seen.found
