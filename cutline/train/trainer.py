"""Hugging Face's Trainer with our step, our validation and small checkpoints.

The step is ``LearnerTrainer.training_step``; what a chunk's loss is, is in ``captioner.py``, ``retriever.py`` and the
objectives.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from cutline.core import ranks
from cutline.core.errors import TrainingError
from cutline.families.base import Batch
from cutline.train import distributed
from cutline.train.checkpoints import WHOLE, load_trained, save_trained
from cutline.train.evaluator import Evaluator
from cutline.train.examples import NOTES, EpochShuffle, Examples
from cutline.train.learner import Learner, Output
from cutline.train.objective import Step
from cutline.train.settings import TrainSettings
from cutline.train.trainable import by_rate


class LearnerTrainer(Trainer):
    """Trains a ``Learner``.

    Args:
        learner: the family and its objectives.
        evaluator: scores the family at each validation; None where there is none.
        settings: the ``[train]`` section.
        examples: what is trained on.
        validation_examples: what the validation loss is computed of, this process's share; None: there is no such loss.
        arguments: of Hugging Face's Trainer.
    """

    def __init__(
        self,
        learner: Learner[Any],
        evaluator: Evaluator | None,
        settings: TrainSettings,
        examples: Examples,
        validation_examples: Examples | None,
        **arguments: Any,
    ):
        callbacks = [*learner.callbacks(), *arguments.pop("callbacks", [])]
        # the Trainer wants to see a validation set, though ``evaluate`` has its own
        validated = None if evaluator is None else validation_examples or examples
        super().__init__(
            model=learner, train_dataset=examples, eval_dataset=validated, callbacks=callbacks, **arguments
        )
        self.learner, self.family = learner, learner.family
        self.evaluator = evaluator
        self.settings = settings
        self.examples, self.validation_examples = examples, validation_examples
        #: Chunks have their share of the step's loss already.
        self.loss_is_scaled_for_ga = True
        #: Makes the Trainer count the label tokens of a step, in all processes.
        self.model_accepts_loss_kwargs = True
        self._terms, self._batches = dict[str, Tensor](), 0
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)

    # ---- a step

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """One batch: the forward and backward pass of each of its chunks.

        The last chunk's backward pass exchanges gradients with the other processes, unless more batches follow before
        the optimizer's step.
        """
        model.train()
        batch = self._prepare_inputs(inputs)
        step = Step(
            number=self.state.global_step,
            epoch=self.state.epoch or 0.0,
            batches=self.current_gradient_accumulation_steps,
            tokens=num_items_in_batch,
            scale=self.accelerator.num_processes if self.args.average_tokens_across_devices else 1,
        )
        with self.learner.context.precision():
            chunks = self.learner.chunks(batch, lambda: self.examples.of(batch), step)
        value = torch.zeros((), device=self.args.device)
        terms: dict[str, Tensor] = {}
        for chunk in chunks:
            with self._without_exchange(model) if chunk is not chunks[-1] else nullcontext():
                # one pass of the Trainer: autocast, forward, scaling, backward
                super().training_step(model, {"chunk": chunk}, num_items_in_batch)
            value += self._output.value
            terms = _added(terms, self._output.terms)
        if len(terms) > 1:
            self._terms, self._batches = _added(self._terms, terms), self._batches + 1
        return value

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Tensor | int | None = None
    ) -> Any:
        """The loss of a chunk."""
        self._output: Output = model(inputs["chunk"])
        return (self._output.loss, self._output) if return_outputs else self._output.loss

    def _without_exchange(self, model: Any) -> AbstractContextManager[Any]:
        return self.accelerator.no_sync(model)  # type: ignore[no-any-return]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Each of several losses by itself, too, unweighted: means since the last time, over all processes."""
        if "loss" in logs:
            if self._terms:
                means = {name: float(term) / self._batches for name, term in self._terms.items()}
                every = distributed.all_gather_object(means)
                logs |= {f"loss_{name}": sum(one[name] for one in every) / len(every) for name in self._terms}
            self._terms, self._batches = {}, 0
        super().log(logs, start_time)

    # ---- the optimizer and its rates

    def create_optimizer(self, model: Any = None) -> Any:
        """Parts have their own learning rates; schedules multiply each."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if fresh and self.settings.part_lr:
            optimizer.param_groups[:] = by_rate(self.family, optimizer.param_groups, self.settings.part_lr)
        return optimizer

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """Without temperatures and other single numbers, which have no weight decay."""
        single = {name for name, parameter in model.named_parameters() if parameter.numel() == 1}
        return [name for name in super().get_decay_parameter_names(model) if name not in single]

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The usual schedule ends where an objective with a learning rate of its own begins; that one falls to 0."""
        later = self.learner.later
        if later is None:
            return super().create_scheduler(num_training_steps, optimizer)
        begin = min(later.start, num_training_steps)
        usual = super().create_scheduler(max(begin, 1), optimizer).lr_lambdas
        low, rest = later.lr / self.args.learning_rate, max(num_training_steps - begin, 1)

        def with_later(factor: Callable[[int], float]) -> Callable[[int], float]:
            return lambda step: factor(step) if step < begin else low * max(0.0, 1 - (step - begin) / rest)

        factors = [with_later(factor) for factor in usual]
        self.lr_scheduler: Any = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factors)
        return self.lr_scheduler

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochShuffle:
        return EpochShuffle(
            len(self.examples), self.args.seed, self.settings.horizontal_flip, self.settings.drop_context
        )

    # ---- validation

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Validation loss (nats a token, teacher forcing) and the evaluator's scores, with the weights to be saved."""
        assert self.evaluator is not None
        started = time.monotonic()
        self.family.eval()
        with self.learner.validated_weights():
            scores = {**self._validation_loss(), **self._scores(self.evaluator)}
        found = {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
        found[f"{metric_key_prefix}_seconds"] = round(time.monotonic() - started, 1)
        self.log(found)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found

    def _scores(self, evaluator: Evaluator) -> dict[str, float]:
        scores = dict(evaluator(self.family, self.state.global_step))
        wanted = str(self.args.metric_for_best_model or "").removeprefix("eval_")
        if wanted and wanted not in scores:
            raise TrainingError(
                f"The evaluator gives no score {wanted!r}, which chooses the checkpoint.",
                f"Its scores: {', '.join(scores)}. Set its primary_metric to one of them.",
            )
        return scores

    def _validation_loss(self) -> dict[str, float]:
        if self.validation_examples is None:
            return {}
        nll, tokens = 0.0, 0
        with torch.no_grad(), self.learner.context.precision():
            for batch in self._validation_batches(self.validation_examples):
                result = self.family(self._prepare_inputs(_without_notes(batch)))
                nll, tokens = nll + float(result.nll), tokens + int(result.tokens)
        shares = distributed.all_gather_object((nll, tokens))
        nll, tokens = sum(share[0] for share in shares), sum(share[1] for share in shares)
        return {"loss": nll / max(tokens, 1)}

    def _validation_batches(self, examples: Examples) -> DataLoader[Any]:
        # this process's own share: accelerate's would see some images twice, so that shares are equal
        return DataLoader(examples, self.args.per_device_eval_batch_size, collate_fn=self.data_collator)

    # ---- distributed training

    def leaves_out_parameters(self) -> bool:
        """Whether a step leaves trainable parameters without a gradient, which DDP must be told; tried on one batch."""
        first, last = self.examples[0], self.examples[len(self.examples) - 1]
        with torch.random.fork_rng():
            batch = self._prepare_inputs(self.data_collator([first, last]))
            self.learner.train()
            self.learner.trial(batch)
        left = any(p.requires_grad and p.grad is None for p in self.learner.parameters())
        self.learner.zero_grad(set_to_none=True)
        return left

    # ---- checkpoints: what is trained, and buffers; frozen weights are in the checkpoint that was opened

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        save_trained(self.family, Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_trained(self.family, Path(resume_from_checkpoint))
        self.learner.load(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if self.state.best_model_checkpoint:
            best = Path(self.state.best_model_checkpoint)
            load_trained(self.family, best)
            self.learner.load(best)
            self.learner.finish()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        checkpoint = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if ranks.is_main_process():
            checkpoint.mkdir(parents=True, exist_ok=True)
            self.learner.save(checkpoint)
        super()._save_checkpoint(model, trial)
        distributed.barrier()  # each process has a file there
        if ranks.is_main_process():
            (checkpoint / WHOLE).touch()


def _added(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, Tensor]:
    added = dict(one)
    for name, term in other.items():
        added[name] = added[name] + term if name in added else term
    return added


def _without_notes(batch: Batch) -> Batch:
    return {name: tensor for name, tensor in batch.items() if name not in NOTES}
