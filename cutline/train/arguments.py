"""The ``[train]`` section as arguments of Hugging Face's Trainer, and the precision that it computes in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from cutline.core.errors import TrainingError
from cutline.train import distributed
from cutline.train.evaluator import Evaluator
from cutline.train.settings import TrainSettings


def arguments(
    settings: TrainSettings, folder: Path, device: torch.device, seed: int, evaluator: Evaluator | None
) -> TrainingArguments:
    """
    Args:
        settings: the ``[train]`` section.
        folder: of the checkpoints.
        device: of the model.
        seed: seed for shuffling and dropout.
        evaluator: its primary metric chooses the checkpoint; None: the last one is the result.
    """
    precision = precision_of(settings, device)
    strategy = "epoch" if settings.eval_steps == "epoch" else "steps"
    every = settings.eval_steps if isinstance(settings.eval_steps, int) else 500
    scheduler = settings.lr_scheduler_type
    cosine = scheduler == "cosine" and settings.min_lr > 0
    schedules = {"constant": "constant_with_warmup", "cosine": "cosine_with_min_lr" if cosine else "cosine"}
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        learning_rate=settings.lr,
        lr_scheduler_type=schedules.get(scheduler, scheduler),
        lr_scheduler_kwargs={"min_lr": settings.min_lr} if cosine else None,
        warmup_steps=settings.warmup_steps if settings.warmup_steps < 1 else int(settings.warmup_steps),
        optim=settings.optimizer,
        weight_decay=settings.weight_decay,
        adam_beta1=settings.betas[0],
        adam_beta2=settings.betas[1],
        max_grad_norm=settings.max_grad_norm,
        bf16=precision == "bfloat16",
        fp16=precision == "float16",
        eval_strategy=strategy,
        eval_steps=every,
        save_strategy=strategy,
        save_steps=every,
        save_total_limit=settings.save_total_limit + 1,
        load_best_model_at_end=evaluator is not None,
        metric_for_best_model=evaluator and f"eval_{primary_metric(evaluator, settings)}",
        greater_is_better=evaluator and getattr(evaluator, "greater_is_better", True),
        logging_steps=settings.logging_steps,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=settings.report_to or "none",
        dataloader_num_workers=settings.dataloader_num_workers,
        dataloader_pin_memory=device.type == "cuda",
        remove_unused_columns=False,
        label_names=["labels"],
        fsdp=settings.fsdp,
        fsdp_config=settings.fsdp_config,
        deepspeed=settings.deepspeed,
        seed=seed,
        use_cpu=device.type == "cpu",
        ddp_timeout=int(distributed.PATIENCE.total_seconds()),
    )


def primary_metric(evaluator: Evaluator, settings: TrainSettings) -> str:
    """The score that chooses the checkpoint."""
    return str(getattr(evaluator, "primary_metric", settings.metric))


def precision_of(settings: TrainSettings, device: torch.device) -> str:
    """The precision of the arithmetic that ``[train] precision`` stands for on a device.

    Raises:
        TrainingError: float16 without a GPU, where gradients can't be scaled.
    """
    if settings.precision == "auto":
        return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    if settings.precision == "float16" and device.type == "cpu":
        raise TrainingError(
            '[train] precision = "float16" needs a GPU.', 'Use "bfloat16", which has the range of float32, or "auto".'
        )
    return settings.precision


def autocast(settings: TrainSettings, device: torch.device) -> AbstractContextManager[Any]:
    """The training's precision, as the Trainer's accelerator has it."""
    precision = precision_of(settings, device)
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))
