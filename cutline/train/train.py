"""The verb: a family and a dataset become a checkpoint."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, TrainingArguments, set_seed

from cutline.core import ranks
from cutline.core.errors import TrainingError
from cutline.core.progress import Bars, silent
from cutline.core.records import Sample
from cutline.core.text_table import text_table
from cutline.data.dataset import Dataset, captioned_split
from cutline.families.base import Family
from cutline.families.common.feature_cache import FeatureCache
from cutline.families.settings import GenerateSettings
from cutline.metrics.find import higher_is_better
from cutline.train import distributed as together
from cutline.train.examples import Collator, Examples, may_mirror, mirrored
from cutline.train.guards import Guards
from cutline.train.last_good import CHECKPOINTS, go_back, step_of
from cutline.train.loop import (
    WEIGHTS,
    CaptionTrainer,
    Log,
    Validation,
    last_whole_checkpoint,
    load_trained,
    save_trained,
)
from cutline.train.recompute import recomputing
from cutline.train.retrieval_loop import RetrievalTrainer
from cutline.train.self_critical import SelfCritic
from cutline.train.settings import TrainSettings
from cutline.train.trainable import PartSummary, check_rates, open_parts
from cutline.train.weight_interpolation import RewardStage

logger = logging.getLogger(__name__)


def train(
    family: Family,
    dataset: Dataset,
    settings: TrainSettings,
    folder: Path,
    *,
    seed: int = 0,
    cache_root: Path | None = None,
    bars: Bars = silent,
) -> dict[str, Any]:
    """Trains a family; begins, or goes on from the last whole checkpoint in the folder.

    Args:
        family: opened; holds the best weights afterwards.
        dataset: has the splits train and (where the training chooses by score) val.
        settings: the ``[train]`` section.
        folder: checkpoints and log.jsonl go here.
        seed: of order and dropout.
        cache_root: folder of feature caches; the user's cache by default.
        bars: shows the progress.

    Returns:
        Facts for the run's record: steps, best score, parts.

    Raises:
        DataError: a split is missing, or has no captions.
        TrainingError: the policy is impossible, or the training had to stop.
    """
    if settings.drop_context and "{context}" not in family.prompt:
        raise TrainingError(
            f"[train] drop_context = {settings.drop_context}: the prompt has no context to leave out.",
            "Put {context} into [model] prompt, or leave drop_context out.",
        )
    training = [sample for sample in captioned_split(dataset, "train") if sample.captions]
    validating = spread([sample for sample in captioned_split(dataset, "val") if sample.captions], settings.val_images)
    data = (training, validating)
    if settings.align is not None:
        _align(family, data, settings, folder / "align", seed, cache_root, bars)
    return _stage(family, data, settings, folder, seed, cache_root, bars)


def _align(
    family: Family,
    data: tuple[Sequence[Sample], Sequence[Sample]],
    settings: TrainSettings,
    folder: Path,
    seed: int,
    cache_root: Path | None,
    bars: Bars,
) -> None:
    """The stage before the main one. Only what it trained is kept, in one file, which is also its marker."""
    assert settings.align is not None
    said = {key: value for key, value in settings.align.model_dump().items() if value is not None}
    parts = dict.fromkeys(family.parts, "frozen") | settings.align.parts
    stage = settings.model_copy(
        update={"align": None, "max_steps": None, "patience": 0, "scst": None} | said | {"parts": parts}
    )
    if (folder / WEIGHTS).exists():
        logger.info("train: aligned before")
        open_parts(family, stage.parts, stage.lora, for_captions=not stage.retrieval)
        load_trained(family, folder)
    else:
        logger.info("train: first stage, alignment")
        _stage(family, data, stage, folder, seed, cache_root, bars, choose=False)
        open_parts(family, stage.parts, stage.lora, for_captions=not stage.retrieval)
        if ranks.is_first():
            save_trained(family, folder)
            shutil.rmtree(folder / CHECKPOINTS)
        logger.info("train: main stage")
    family.requires_grad_(False).eval()


def _stage(
    family: Family,
    data: tuple[Sequence[Sample], Sequence[Sample]],
    settings: TrainSettings,
    folder: Path,
    seed: int,
    cache_root: Path | None,
    bars: Bars,
    *,
    choose: bool = True,
) -> dict[str, Any]:
    """One training from its beginning, or from its last whole checkpoint; ``choose``: ends with the best one."""
    training, validating = data
    set_seed(seed)
    if precision_of(settings, family.device) == "float32":
        family.float()  # what is quantised stays as it is
    parts = open_parts(family, settings.parts, settings.lora, for_captions=not settings.retrieval)
    family.untaught -= settings.retrieval.teaches(family.can) if settings.retrieval else {"caption"}
    if ranks.is_first():
        logger.info(f"what is trained\n{parts_table(parts)}")
    check_rates(family, settings.part_lr)
    cache = None
    if settings.cache_features and family.see_only_frozen():
        flipped = [mirrored(sample) for sample in training if may_mirror(sample)] if settings.horizontal_flip else []
        cache = _cached(family, [*training, *validating, *flipped], settings, cache_root, bars)
    if family.serial and family.device.type == "cpu":
        torch.set_num_threads(1)
    examples = Examples(training, settings.captions_per_image)
    checkpoints = folder / CHECKPOINTS
    together.wait()  # nobody still looks at files of before
    if ranks.is_first():
        go_back(folder, overruled=not settings.guards.enabled)
    together.wait()
    resumed = last_whole_checkpoint(checkpoints)
    steps = step_of(resumed) if resumed else 0
    guards = _guards(family, validating, settings, examples, folder, steps) if choose else []
    with (
        recomputing(family, settings.gradient_checkpointing),
        bars("training") as progress,
        Log(folder / "log.jsonl", progress, steps) as log,
    ):
        with _what_the_trainer_refuses():
            trainer = _trainer(
                family,
                data,
                settings,
                cache,
                {
                    "reward_stage": _reward_stage(family, settings, examples),
                    "args": arguments(settings, checkpoints, family.device, seed, choose),
                    "train_dataset": examples,
                    "callbacks": [
                        log,
                        *guards,
                        *([EarlyStoppingCallback(settings.patience)] if settings.patience else []),
                    ],
                },
            )
            trainer.get_optimizer_cls_and_kwargs(trainer.args, family)
        torch.manual_seed(seed + ranks.rank())  # each process its own dropout
        if ranks.count() > 1:
            trainer.args.ddp_find_unused_parameters = trainer.leaves_out_parameters()
        with trainer.generating():
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    state = trainer.state
    together.wait()
    family.requires_grad_(False).eval()
    return {
        "steps": state.global_step,
        "best_step": state.best_global_step,
        f"best_val_{settings.chosen_by}": state.best_metric,
        "parts": {line.part: asdict(line) for line in parts},
    }


def _trainer(
    family: Family,
    data: tuple[Sequence[Sample], Sequence[Sample]],
    settings: TrainSettings,
    cache: FeatureCache | None,
    arguments: dict[str, Any],
) -> CaptionTrainer:
    training, validating = data
    arguments = (
        arguments | settings.model_dump(include={"part_lr", "drop_context"}) | {"flip": settings.horizontal_flip}
    )
    if settings.retrieval:
        return RetrievalTrainer(family, settings, training, validating, cache, **arguments)
    return CaptionTrainer(
        family,
        Validation(validating, _for_validation(settings), settings.metric, cache),
        settings.label_smoothing,
        _critic(family, training, settings, cache),
        _first_critical_step(arguments["train_dataset"], settings),
        settings.scst.lr if settings.scst else 0.0,
        eval_dataset=Examples(validating[ranks.rank() :: ranks.count()], "all"),
        data_collator=Collator(family, cache),
        **arguments,
    )


def _guards(
    family: Family, validating: Sequence[Sample], settings: TrainSettings, examples: Examples, folder: Path, steps: int
) -> list[Guards]:
    if settings.retrieval or not settings.guards.enabled:  # they look at captions
        return []
    until = _first_critical_step(examples, settings) if settings.scst else math.inf
    panel = spread(validating, settings.guards.images)
    return [
        Guards(family, panel, validating, settings.guards, settings.val_max_new_tokens, settings.label_smoothing, until,
               folder, steps)
    ]  # fmt: skip


@contextmanager
def _what_the_trainer_refuses() -> Iterator[None]:
    """An optimiser or tracker that the Trainer doesn't know, or that isn't installed, as an error to mend."""
    try:
        yield
    except (ValueError, ImportError) as error:
        raise TrainingError(
            f"[train] can't be done: {' '.join(str(error).split())[:300]}",
            "Change that key, or install what it needs; optimizer and report_to have the Trainer's names.",
        ) from error


def arguments(
    settings: TrainSettings, folder: Path, device: torch.device, seed: int, choose: bool = True
) -> TrainingArguments:
    """The ``[train]`` section in the words of Hugging Face's Trainer; ``choose``: the best checkpoint is the result."""
    precision = precision_of(settings, device)
    strategy = "epoch" if settings.eval_steps == "epoch" else "steps"
    every = settings.eval_steps if isinstance(settings.eval_steps, int) else 500
    cosine = settings.lr_scheduler_type == "cosine" and settings.min_lr > 0
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        learning_rate=settings.lr,
        lr_scheduler_type="cosine_with_min_lr" if cosine else settings.lr_scheduler_type
        if settings.lr_scheduler_type != "constant" else "constant_with_warmup",
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
        load_best_model_at_end=choose,
        metric_for_best_model=f"eval_{settings.chosen_by}" if choose else None,
        greater_is_better=bool(settings.retrieval) or higher_is_better(settings.metric) if choose else None,
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
        ddp_timeout=int(together.PATIENCE.total_seconds()),
    )  # fmt: skip


def precision_of(settings: TrainSettings, device: torch.device) -> str:
    """The precision of the arithmetic that ``[train] precision`` stands for on a device.

    Raises:
        TrainingError: float16 without a GPU, where gradients can't be scaled.
    """
    if settings.precision == "auto":
        return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    if settings.precision == "float16" and device.type == "cpu":
        raise TrainingError(
            '[train] precision = "float16" needs a GPU.', 'Say "bfloat16", which has the range of float32, or "auto".'
        )
    return settings.precision


def _for_validation(settings: TrainSettings) -> GenerateSettings:
    return GenerateSettings(num_beams=settings.val_num_beams, max_new_tokens=settings.val_max_new_tokens, batch_size=64)


def spread(samples: Sequence[Sample], count: int | None) -> list[Sample]:
    """``count`` samples, evenly spread over all of them; all when there are no more."""
    if count is None or count >= len(samples):
        return list(samples)
    return [samples[place * len(samples) // count] for place in range(count)]


def _critic(
    family: Family, training: Sequence[Sample], settings: TrainSettings, cache: FeatureCache | None
) -> SelfCritic | None:
    if settings.scst is None:
        return None
    return SelfCritic(family, training, settings.scst.samples, settings.val_max_new_tokens, cache)


def _reward_stage(family: Family, settings: TrainSettings, examples: Examples) -> RewardStage | None:
    if settings.scst is None or settings.scst.interpolation == 1:
        return None
    return RewardStage(family, settings.scst.interpolation, _first_critical_step(examples, settings))


def _first_critical_step(examples: Examples, settings: TrainSettings) -> int:
    batches = math.ceil(len(examples) / (settings.batch_size * ranks.count()))
    start_epoch = settings.scst.start_epoch if settings.scst else 0.0
    return round(start_epoch * math.ceil(batches / settings.gradient_accumulation_steps))


def _cached(
    family: Family, samples: Sequence[Sample], settings: TrainSettings, root: Path | None, bars: Bars
) -> FeatureCache:
    cache = FeatureCache(family, root, getattr(torch, settings.cache_dtype))
    family.eval()
    with bars("vision features") as progress:
        seen = cache.fill(samples, progress)
    logger.info(f"vision features: {seen} images seen, {len(samples) - seen} from the cache in {cache.folder}")
    return cache


def parts_table(parts: Sequence[PartSummary]) -> str:
    """What is trained, a line a part."""
    rows = [
        (
            line.part, line.policy, line.dtype, f"{line.parameters:,}", f"{line.trainable:,}",
            f"{line.adapters:,}" if line.adapters else "",
        )
        for line in parts
    ]  # fmt: skip
    total, trainable = sum(line.parameters for line in parts), sum(line.trainable for line in parts)
    rows.append(("all", f"{trainable / total:.2%}", "", f"{total:,}", f"{trainable:,}", ""))
    return text_table(("part", "policy", "dtype", "parameters", "trainable", "adapters"), rows, left=3)
