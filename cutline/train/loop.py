"""Hugging Face's Trainer, taught our loss, our validation by generated captions, and small checkpoints."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from cutline.caption.caption import caption, caption_cached
from cutline.core import jsonl, ranks
from cutline.core.errors import TrainingError
from cutline.core.files import replaced, write_atomically
from cutline.core.progress import Progress
from cutline.core.records import Prediction, Sample
from cutline.families.base import Batch, Family, Generation
from cutline.families.common.feature_cache import FeatureCache
from cutline.families.settings import GenerateSettings
from cutline.metrics.base import References
from cutline.metrics.scorer import Scorer
from cutline.train import distributed as together
from cutline.train.examples import NOTES, EpochShuffle, mirrored, without_context
from cutline.train.guards import not_finite
from cutline.train.self_critical import SelfCritic
from cutline.train.trainable import by_rate
from cutline.train.weight_interpolation import RewardStage

WEIGHTS = "trained.safetensors"
#: Written last into a checkpoint; one without it is the leftover of a kill.
WHOLE = "whole"


class Validation:
    """Captions a fixed set of validation images, each process its share, and scores them.

    Args:
        samples: validation images with captions.
        settings: how captions are generated for validation.
        metric: the score that chooses the checkpoint.
        cache: features of the images, when the vision part is frozen.
    """

    def __init__(self, samples: Sequence[Sample], settings: GenerateSettings, metric: str, cache: FeatureCache | None):
        self.samples = samples
        self.settings = settings
        self.cache = cache
        references = References(
            {sample.id: list(sample.captions) for sample in samples},
            images={sample.id: sample.image for sample in samples},
        )
        self.scorer = Scorer(references, list(dict.fromkeys(["cider", "bleu4", metric])), resamples=0)

    def __call__(self, family: Family) -> dict[str, float]:
        """Scores by name.

        Raises:
            TrainingError: no image could be captioned.
        """
        mine = self.samples[ranks.rank() :: ranks.count()]
        batches = (
            caption_cached(family, mine, self.cache, self.settings)
            if self.cache
            else caption(family, mine, self.settings)
        )
        shares = together.gather([made for batch in batches for made in batch])
        predictions: dict[str, Prediction] = {made.id: made for share in shares for made in share}
        failed = [made for made in predictions.values() if made.status == "failed"]
        if len(failed) == len(predictions):
            raise TrainingError(
                f"No validation image could be captioned: {failed[0].error}", "Look at what it says; nothing was lost."
            )
        return self.scorer.values(predictions)


class CaptionTrainer(Trainer):
    """Trains a Family. The loss is a sum over the label tokens of an accumulated step, divided by their number."""

    def __init__(
        self,
        family: Family,
        validation: Callable[[Family], dict[str, float]] | None,
        label_smoothing: float,
        critic: SelfCritic | None = None,
        critic_from: int = 0,
        critic_lr: float = 0.0,
        part_lr: Mapping[str, float] | None = None,
        flip: bool = False,
        reward_stage: RewardStage | None = None,
        drop_context: float = 0.0,
        model: torch.nn.Module | None = None,
        **arguments: Any,
    ):
        super().__init__(model=model or family, **arguments)
        self.family = family
        self.validation = validation
        self.smoothing = label_smoothing
        self.part_lr = part_lr or {}
        self.flip, self.drop_context = flip, drop_context
        self.reward_stage = reward_stage
        if reward_stage is not None:
            self.add_callback(reward_stage)
        self.critic, self.critic_from, self.critic_lr = critic, critic_from, critic_lr
        # our loss is divided by the tokens of the whole step, so the Trainer must count them and not average again
        self.model_accepts_loss_kwargs = True
        for quiet in (PrinterCallback, ProgressCallback):
            self.remove_callback(quiet)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Tensor | int | None = None
    ) -> Any:
        notes = {name: inputs.pop(name) for name in NOTES}
        if self.critic is not None and model.training and self.state.global_step >= self.critic_from:
            return self._critical_loss(model, notes)
        result = model(inputs, label_smoothing=self.smoothing if model.training else 0.0)
        tokens = result.tokens if num_items_in_batch is None else num_items_in_batch
        loss = (result.nll + result.penalty) / tokens
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # DDP divides by it again
        if model.training and not torch.isfinite(loss.detach()):
            raise not_finite(self.family, inputs, float(loss.detach()), self.state.global_step)
        return (loss, result) if return_outputs else loss

    @contextmanager
    def generating(self) -> Iterator[None]:
        """While this lasts, the family generates in the training's precision, as its forward computes in it: weights
        that are trained may have another dtype than frozen ones."""
        generate = self.family.generate

        def in_precision(batch: Batch, settings: GenerateSettings) -> list[Generation]:
            with self.accelerator.autocast():
                return generate(batch, settings)

        self.family.__dict__["generate"] = in_precision
        try:
            yield
        finally:
            del self.family.__dict__["generate"]

    def create_optimizer(self, model: Any = None) -> Any:
        """Parts have their own learning rates; schedules multiply each."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if fresh and self.part_lr:
            optimizer.param_groups[:] = by_rate(self.family, optimizer.param_groups, self.part_lr)
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The usual schedule ends where self-critical steps begin; these have their own, lower rate, falling to 0.

        At the rate of likelihood steps they push what is worse than its siblings away without end.
        """
        if self.critic is None:
            return super().create_scheduler(num_training_steps, optimizer)
        begin = min(self.critic_from, num_training_steps)
        usual = super().create_scheduler(max(begin, 1), optimizer).lr_lambdas
        low, rest = self.critic_lr / self.args.learning_rate, max(num_training_steps - begin, 1)

        def with_critic(share: Callable[[int], float]) -> Callable[[int], float]:
            return lambda step: share(step) if step < begin else low * max(0.0, 1 - (step - begin) / rest)

        self.lr_scheduler: Any = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, [with_critic(share) for share in usual]
        )
        return self.lr_scheduler

    def _critical_loss(self, model: Any, notes: Mapping[str, Tensor]) -> Tensor:
        assert self.critic is not None
        samples = {}  # an image once, however many its captions
        for place, flip, bare in zip(*(notes[name].tolist() for name in NOTES), strict=True):
            sample = self.train_dataset.samples[place]
            sample = without_context(sample) if bare else sample
            samples[place] = mirrored(sample) if flip else sample
        result = model(self._prepare_inputs(self.critic.batch(list(samples.values()))))
        loss: Tensor = result.nll / result.tokens / self.current_gradient_accumulation_steps
        return loss

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochShuffle:
        return EpochShuffle(len(self.train_dataset), self.args.seed, self.flip, self.drop_context)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Validation loss (nats a token, teacher forcing) and scores of generated captions, by what would be kept."""
        with self.reward_stage.in_place() if self.reward_stage else nullcontext():
            return self._validate(metric_key_prefix)

    def _validate(self, metric_key_prefix: str) -> dict[str, float]:
        assert self.validation is not None
        begun = time.monotonic()
        self.family.eval()
        found = {f"{metric_key_prefix}_{name}": value for name, value in self._validation_loss().items()}
        scores = self.validation(self.family)
        found |= {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
        found[f"{metric_key_prefix}_seconds"] = round(time.monotonic() - begun, 1)
        self.log(found)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found

    def _validation_loss(self) -> dict[str, float]:
        nll, tokens = 0.0, 0
        if self.eval_dataset is not None:
            with torch.no_grad():
                for batch in self._validation_batches():
                    result = self.family(self._prepare_inputs(_without_notes(batch)))
                    nll, tokens = nll + float(result.nll), tokens + int(result.tokens)
        shares = together.gather((nll, tokens))
        nll, tokens = sum(share[0] for share in shares), sum(share[1] for share in shares)
        return {"loss": nll / max(tokens, 1)}

    def _validation_batches(self) -> DataLoader[Any]:
        # this process's own share: accelerate's would see some images twice, so that shares are equal
        return DataLoader(self.eval_dataset, self.args.per_device_eval_batch_size, collate_fn=self.data_collator)

    def leaves_out_parameters(self) -> bool:
        """Whether a step leaves trainable parameters without a gradient, which DDP must be told; tried on one batch."""
        with torch.random.fork_rng():
            batch = self._prepare_inputs(_without_notes(self.data_collator([self.train_dataset[0]])))
            self.family.train()
            self.family(batch).nll.backward()
        left = any(p.requires_grad and p.grad is None for p in self.family.parameters())
        self.family.zero_grad(set_to_none=True)
        return left

    # ---- checkpoints: what is trained, and buffers; the frozen rest stands in the checkpoint that was opened

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        save_trained(self.family, folder)
        if self.reward_stage is not None:
            self.reward_stage.save(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_trained(self.family, Path(resume_from_checkpoint))
        if self.reward_stage is not None:
            self.reward_stage.load(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if self.state.best_model_checkpoint:
            best = Path(self.state.best_model_checkpoint)
            load_trained(self.family, best)
            if self.reward_stage is not None:
                self.reward_stage.load(best)
                self.reward_stage.take()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        together.wait()  # each process has a file there
        if ranks.is_first():
            (Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}" / WHOLE).touch()


def _without_notes(batch: Batch) -> Batch:
    return {name: tensor for name, tensor in batch.items() if name not in NOTES}


def trained_state(family: Family) -> dict[str, Tensor]:
    """The trainable parameters and the buffers that are saved with a model, each under its name in ``family.model``."""
    saved = family.model.state_dict()
    state = {name: p.detach() for name, p in family.model.named_parameters() if p.requires_grad}
    state |= {name: buffer for name, buffer in family.model.named_buffers() if name in saved}
    return {name: tensor.contiguous() for name, tensor in state.items()}


def save_trained(family: Family, folder: Path) -> None:
    """Writes what is trained into a folder; the file is there whole or not at all."""
    with replaced(folder / WEIGHTS) as temporary:  # processes that train together may all write here
        save_file(trained_state(family), temporary)


def load_trained(family: Family, checkpoint: Path) -> None:
    """Puts a checkpoint's tensors back into the family.

    Raises:
        TrainingError: the checkpoint holds other tensors than are trained now.
    """
    saved, wanted = load_file(checkpoint / WEIGHTS), trained_state(family)
    if saved.keys() != wanted.keys():
        different = sorted(saved.keys() ^ wanted.keys())
        raise TrainingError(
            f"{checkpoint} was trained with other parts open (for example {different[0]}).",
            "Give another --out, or delete its train/checkpoints folder to begin anew.",
        )
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(saved[name])


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; unfinished ones are deleted."""
    if not ranks.is_first():
        together.wait()
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for path in found:
        if not (path / WHOLE).exists():
            shutil.rmtree(path)
    whole = [path for path in found if path.exists()]
    if ranks.is_first():
        together.wait()
    return whole[-1] if whole else None


class Log(TrainerCallback):
    """Writes ``train/log.jsonl``, shows progress, and stops at a loss that is not a number."""

    def __init__(self, path: Path, progress: Progress, resumed_at: int):
        self.path = path
        self.progress = progress
        self._out: jsonl.Appender | None = None
        if not ranks.is_first():
            return
        kept = [row for row in jsonl.read(path) if row["step"] <= resumed_at] if path.exists() else []
        write_atomically(path, "")
        self._out = jsonl.Appender(path)
        self._out.write(kept)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *error: object) -> None:
        if self._out:
            self._out.close()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        row = {"step": state.global_step, "epoch": round(state.epoch or 0.0, 4)}
        names = {"learning_rate": "lr", "loss": "loss", "grad_norm": "grad_norm"}
        for name, value in (logs or {}).items():
            if name in names:
                row[names[name]] = value
            elif name.startswith("loss_"):
                row[name] = value
            elif name.startswith("eval_"):
                row["val_" + name.removeprefix("eval_")] = value
        if len(row) > 2 and self._out:
            self._out.write([row])
        loss = (logs or {}).get("loss")
        if loss is not None and not abs(loss) < float("inf"):
            raise TrainingError(
                f"The loss became {loss} by step {state.global_step}.",
                "Lower [train] lr, or use precision float32; the last checkpoint is kept.",
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.progress(state.global_step, state.max_steps)
