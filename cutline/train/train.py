"""Training: a family and a dataset become a checkpoint."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback

from cutline.core import ranks
from cutline.core.errors import TrainingError
from cutline.core.progress import Bars, silent
from cutline.core.records import Sample
from cutline.core.threads import SetThreads, keep_threads
from cutline.data.dataset import Dataset, captioned_split
from cutline.families.base import Family
from cutline.families.common.feature_cache import FeatureCache
from cutline.families.open import limit_threads
from cutline.families.seeding import seeded
from cutline.families.settings import GenerateSettings
from cutline.train import distributed
from cutline.train.arguments import arguments, autocast, precision_of, primary_metric
from cutline.train.captioner import CaptionLearner
from cutline.train.checkpoints import WEIGHTS, last_whole_checkpoint, load_trained, save_trained
from cutline.train.evaluator import CaptionEvaluator, Evaluator, RecallEvaluator
from cutline.train.examples import Collator, Examples, may_mirror, mirrored
from cutline.train.gradient_checkpointing import gradient_checkpointing
from cutline.train.guards import Guards
from cutline.train.last_good import CHECKPOINTS, go_back, step_of
from cutline.train.learner import Learner
from cutline.train.log import Log
from cutline.train.objective import Context
from cutline.train.retriever import RetrievalLearner
from cutline.train.settings import TrainSettings
from cutline.train.trainable import PartSummary, check_rates, open_parts, parts_table
from cutline.train.trainer import LearnerTrainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingStage:
    """One stage of a training, and where it is kept.

    Attributes:
        family: in training.
        training, validating: samples with captions.
        settings: the ``[train]`` section, as it is for this stage.
        folder: checkpoints and logs go here.
        seed: seed for shuffling and dropout.
        cache_root: folder of feature caches; None: the user's cache.
        bars: shows the progress.
        evaluator: the user's own validation, if there is one.
        chooses: whether the stage ends with its best checkpoint, and not with the last one.
        set_threads: called where the model trains faster on one thread.
    """

    family: Family
    training: Sequence[Sample]
    validating: Sequence[Sample]
    settings: TrainSettings
    folder: Path
    seed: int
    cache_root: Path | None
    bars: Bars
    evaluator: Evaluator | None
    chooses: bool = True
    set_threads: SetThreads = keep_threads


def train(
    family: Family,
    dataset: Dataset,
    settings: TrainSettings,
    folder: Path,
    *,
    seed: int = 0,
    cache_root: Path | None = None,
    evaluator: Evaluator | None = None,
    bars: Bars = silent,
    set_threads: SetThreads = keep_threads,
) -> dict[str, Any]:
    """Trains a family; starts, or resumes from the last whole checkpoint in the folder.

    Args:
        family: opened; holds the best weights afterwards.
        dataset: has the splits train and val.
        settings: the ``[train]`` section.
        folder: checkpoints and log.jsonl go here.
        seed: seed for shuffling and dropout.
        cache_root: folder of feature caches; the user's cache by default.
        evaluator: your own validation, instead of the CIDEr of generated captions or of recall: called with the family
            and the step, it returns scores by name; see ``cutline.train.evaluator.Evaluator``.
        bars: shows the progress.
        set_threads: called where the model trains faster on one thread; by default the process keeps its threads.

    Returns:
        Facts for the run's record: steps, best score, parts.

    Raises:
        DataError: a split is missing, or has no captions.
        TrainingError: the settings can't be followed, or the training had to stop.
    """
    if settings.drop_context and "{context}" not in family.prompt:
        raise TrainingError(
            f"[train] drop_context = {settings.drop_context}: the prompt has no context to leave out.",
            "Put {context} into [model] prompt, or leave drop_context out.",
        )
    training = [sample for sample in captioned_split(dataset, "train") if sample.captions]
    validating = spread([sample for sample in captioned_split(dataset, "val") if sample.captions], settings.val_images)
    stage = TrainingStage(
        family, training, validating, settings, folder, seed, cache_root, bars, evaluator, set_threads=set_threads
    )
    if settings.align is not None:
        _align(replace(stage, settings=_aligned(settings, family), folder=folder / "align", chooses=False))
    with seeded(seed):
        return _run(stage)


def _align(stage: TrainingStage) -> None:
    """The stage before the main one. Only what it trained is kept, in one file, which is also its marker."""
    family, settings, folder = stage.family, stage.settings, stage.folder
    trained = (folder / WEIGHTS).exists()
    if trained:
        logger.info("train: alignment is already done")
    else:
        logger.info("train: first stage, alignment")
        with seeded(stage.seed):
            _run(stage)
    open_parts(family, settings.parts, settings.lora, for_captions=not settings.retrieval)
    if trained:
        load_trained(family, folder)
    else:
        if ranks.is_main_process():
            save_trained(family, folder)
            shutil.rmtree(folder / CHECKPOINTS)
        logger.info("train: main stage")
    family.requires_grad_(False).eval()


def _aligned(settings: TrainSettings, family: Family) -> TrainSettings:
    """The settings of the alignment stage: those of ``[train]``, without sections that begin later."""
    assert settings.align is not None
    own = {key: value for key, value in settings.align.model_dump().items() if value is not None}
    own |= settings.without_later_objectives()
    parts = dict.fromkeys(family.parts, "frozen") | settings.align.parts
    return settings.model_copy(update={"align": None, "max_steps": None, "patience": 0} | own | {"parts": parts})


def _run(stage: TrainingStage) -> dict[str, Any]:
    """One stage from its beginning, or from its last whole checkpoint."""
    family, settings = stage.family, stage.settings
    parts = _open(stage)
    cache = _cached_features(stage)
    examples = Examples(stage.training, settings.captions_per_image)
    resumed = _last_checkpoint(stage)
    steps_done = step_of(resumed) if resumed else 0
    learner = _learner(stage, examples, cache)
    family.untrained_tasks -= learner.tasks
    evaluator = stage.evaluator or _evaluator(stage, cache)
    guards = _guards(stage, learner, steps_done)
    with (
        gradient_checkpointing(family, settings.gradient_checkpointing),
        _limited_threads(family, stage.set_threads),
        stage.bars("training") as progress,
        Log(stage.folder / "log.jsonl", progress, steps_done) as log,
    ):
        trainer = _trainer(stage, learner, evaluator, examples, cache, [log, *guards])
        torch.manual_seed(stage.seed + ranks.rank())  # each process its own dropout
        if ranks.count() > 1:
            trainer.args.ddp_find_unused_parameters = trainer.leaves_out_parameters()
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    distributed.barrier()
    family.requires_grad_(False).eval()
    return {
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        f"best_val_{primary_metric(evaluator, settings)}": trainer.state.best_metric,
        "parts": {line.part: asdict(line) for line in parts},
    }


def _open(stage: TrainingStage) -> list[PartSummary]:
    """Freezes and opens the parts of the model."""
    family, settings = stage.family, stage.settings
    if precision_of(settings, family.device) == "float32":
        family.float()  # what is quantised stays as it is
    parts = open_parts(family, settings.parts, settings.lora, for_captions=not settings.retrieval)
    check_rates(family, settings.part_lr)
    if ranks.is_main_process():
        logger.info(f"what is trained\n{parts_table(parts)}")
    return parts


def _cached_features(stage: TrainingStage) -> FeatureCache | None:
    """The features of all images, where no trained weight changes them."""
    family, settings = stage.family, stage.settings
    if not (settings.cache_features and family.freeze_boundary()):
        return None
    samples = [*stage.training, *stage.validating]
    if settings.horizontal_flip:
        samples += [mirrored(sample) for sample in stage.training if may_mirror(sample)]
    cache = FeatureCache(family, stage.cache_root, getattr(torch, settings.cache_dtype))
    family.eval()
    with stage.bars("vision features") as progress:
        seen = cache.fill(samples, progress)
    logger.info(f"vision features: {seen} images computed, {len(samples) - seen} from the cache in {cache.folder}")
    return cache


def _last_checkpoint(stage: TrainingStage) -> Path | None:
    """The checkpoint to resume from; after a guard had stopped the training, the last good one."""
    distributed.barrier()  # no process still reads older files
    if ranks.is_main_process():
        go_back(stage.folder, overruled=not stage.settings.guards.enabled)
    distributed.barrier()
    return last_whole_checkpoint(stage.folder / CHECKPOINTS)


def _learner(stage: TrainingStage, examples: Examples, cache: FeatureCache | None) -> Learner[Any]:
    """The family with the objectives that the recipe asks for."""
    settings = stage.settings
    batches = math.ceil(len(examples) / (settings.batch_size * ranks.count()))
    context = Context(
        family=stage.family,
        samples=stage.training,
        cache=cache,
        max_new_tokens=settings.val_max_new_tokens,
        steps_per_epoch=math.ceil(batches / settings.gradient_accumulation_steps),
        precision=partial(autocast, settings, stage.family.device),
    )
    return RetrievalLearner(settings, context) if settings.retrieval else CaptionLearner(settings, context)


def _evaluator(stage: TrainingStage, cache: FeatureCache | None) -> Evaluator:
    """Recall, or the scores of generated captions."""
    settings = stage.settings
    precision = partial(autocast, settings, stage.family.device)
    if settings.retrieval:
        size = settings.retrieval.mini_batch_size or settings.batch_size
        return RecallEvaluator(
            stage.validating, settings.retrieval.metric, settings.retrieval.rerank, cache, size, precision
        )
    generate = GenerateSettings(
        num_beams=settings.val_num_beams, max_new_tokens=settings.val_max_new_tokens, batch_size=64
    )
    return CaptionEvaluator(stage.validating, generate, settings.metric, cache, precision)


def _guards(stage: TrainingStage, learner: Learner[Any], steps_done: int) -> list[Guards]:
    """They look at captions, so a training for retrieval has none; nor has a stage whose captions choose nothing."""
    family, settings = stage.family, stage.settings
    if not (isinstance(learner, CaptionLearner) and settings.guards.enabled and stage.chooses):
        return []
    guards = Guards(
        family,
        spread(stage.validating, settings.guards.images),
        stage.validating,
        settings.guards,
        settings.val_max_new_tokens,
        learner.least_loss(len(family.tokenizer)),
        learner.usual_until,
        stage.folder,
        steps_done,
        learner.context.precision,
    )
    return [guards]


def _trainer(
    stage: TrainingStage,
    learner: Learner[Any],
    evaluator: Evaluator,
    examples: Examples,
    cache: FeatureCache | None,
    callbacks: list[Any],
) -> LearnerTrainer:
    family, settings = stage.family, stage.settings
    validation = None
    if isinstance(learner, CaptionLearner):  # the loss of retrieval depends on which images are in a batch together
        validation = Examples(stage.validating[ranks.rank() :: ranks.count()], "all")
    if settings.patience:
        callbacks = [*callbacks, EarlyStoppingCallback(settings.patience)]
    chooses = evaluator if stage.chooses else None
    with _what_the_trainer_refuses():
        trainer = LearnerTrainer(
            learner,
            evaluator,
            settings,
            examples,
            validation,
            data_collator=learner.collator() if isinstance(learner, RetrievalLearner) else Collator(family, cache),
            args=arguments(settings, stage.folder / CHECKPOINTS, family.device, stage.seed, chooses),
            callbacks=callbacks,
        )
        trainer.get_optimizer_cls_and_kwargs(trainer.args, learner)
    return trainer


@contextmanager
def _limited_threads(family: Family, set_threads: SetThreads) -> Iterator[None]:
    """Asks for one thread while a small model trains, and for the former number afterwards."""
    threads = torch.get_num_threads()
    limit_threads(family, set_threads, training=True)
    try:
        yield
    finally:
        set_threads(threads)


@contextmanager
def _what_the_trainer_refuses() -> Iterator[None]:
    """Turns the Trainer's complaint about an optimizer or tracker, unknown or not installed, into an error."""
    try:
        yield
    except (ValueError, ImportError) as error:
        raise TrainingError(
            f"[train] can't be done: {' '.join(str(error).split())[:300]}",
            "Change that key, or install what it needs; optimizer and report_to have the Trainer's names.",
        ) from error


def spread(samples: Sequence[Sample], count: int | None) -> list[Sample]:
    """``count`` samples, evenly spread over all of them; all when there are no more."""
    if count is None or count >= len(samples):
        return list(samples)
    return [samples[index * len(samples) // count] for index in range(count)]
