"""The trainer for retrieval: batches of images with all their captions, and validation by recall."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cutline.core import ranks
from cutline.core.errors import TrainingError
from cutline.core.records import Sample
from cutline.families.base import Batch, Family
from cutline.families.common.feature_cache import FeatureCache
from cutline.families.common.retrieval import RetrievalFamily
from cutline.images.open import open_sample
from cutline.retrieve.gallery import gather
from cutline.retrieve.recall import recalls
from cutline.retrieve.rerank import rerank
from cutline.retrieve.stages import first_stage
from cutline.train import distributed as together
from cutline.train.loop import CaptionTrainer
from cutline.train.positives import Truth
from cutline.train.retriever import RetrievalBatch, Retriever
from cutline.train.settings import RetrievalSettings, TrainSettings

#: What a checkpoint keeps of the training itself: temperature, slow copy, queues; alike in all processes.
STATE = "retrieval.safetensors"


class RetrievalCollator:
    """Examples → ``{"batch": RetrievalBatch}``; cached features instead of pixels where there is a cache."""

    def __init__(self, family: RetrievalFamily, cache: FeatureCache | None, settings: RetrievalSettings, truth: Truth):
        self.family, self.cache, self.settings, self.truth = family, cache, settings, truth

    def __call__(self, samples: Sequence[Sample]) -> dict[str, RetrievalBatch]:
        features = self.cache.get(samples) if self.cache else None
        visual = self.family.visual(samples, None, None, features)
        rows = [number for number, sample in enumerate(samples) for _ in sample.captions]
        size = self.settings.mini_batch_size or len(samples)
        chunks = range(0, len(samples), size) if self.settings.lm else range(0)
        captions = [caption for sample in samples for caption in sample.captions]
        batch = RetrievalBatch(
            visual=visual,
            captions=captions,
            rows=torch.tensor(rows),
            pictures=torch.tensor([self.truth.pictures[sample.extra["place"]] for sample in samples]),
            texts=torch.tensor(self.truth.texts(captions)),
            lm=[self._captioning(samples, visual, first, first + size) for first in chunks],
        )
        return {"batch": batch}

    def _captioning(self, samples: Sequence[Sample], visual: Batch, first: int, last: int) -> Batch:
        some = samples[first:last]
        rows = [{name: tensor[[place]] for name, tensor in visual.items()} for place in range(first, first + len(some))]
        if "features" in visual:
            made = self.family.encode(some, with_targets=True, features=[{"features": r["features"][0]} for r in rows])
        else:
            made = self.family.encode(some, with_targets=True, pixels=rows)
        return {name: tensor for name, tensor in made.items() if name not in visual}


class RetrievalValidation:
    """Recall on a fixed set of validation images and all their captions, in both directions.

    Args:
        samples: validation images with captions.
        settings: whether, and how far, candidates are ranked anew by matching.
        cache: features of the images, when the vision part is frozen.
        batch_size: images, or captions, at a time.
        precision: in which the training computes.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        settings: RetrievalSettings,
        cache: FeatureCache | None,
        batch_size: int,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ):
        self.settings, self.cache, self.batch_size = settings, cache, batch_size
        self.precision = precision
        self.gallery = gather(samples, list)

    @torch.no_grad()
    def __call__(self, family: Family) -> dict[str, float]:
        """Recall in both directions and its mean, as ``cutline.retrieve.recall`` says."""
        assert isinstance(family, RetrievalFamily)
        with self.precision():
            pictures, captions = self.gallery.pictures, self.gallery.texts
            images = self._shared(len(pictures), lambda places: family.embed_images(self._seen(family, places)))
            texts = self._shared(
                len(captions),
                lambda places: family.embed_texts(family.encode_texts([captions[place] for place in places])),
            )
            found = self._ranked(family, images, texts) if ranks.is_first() else None
        return cast(dict[str, float], together.gather(found)[0])

    def _ranked(self, family: RetrievalFamily, images: Tensor, texts: Tensor) -> dict[str, float]:
        k = self.settings.rerank
        stages = first_stage(self.gallery, images, texts, family.similarity, k or len(self.gallery.text_of))
        if k:
            matching = family.matching(self.gallery.texts)
            of_images, of_texts = stages.texts_of_images, stages.images_of_texts
            for _ in rerank(matching, lambda image: self._seen(family, [image]), of_images, of_texts):
                pass
        return recalls(*(stages.ranks(direction, matched=bool(k))[0] for direction in ("tr", "ir")))

    def _seen(self, family: RetrievalFamily, places: Sequence[int]) -> Batch:
        samples = [self.gallery.pictures[place] for place in places]
        if self.cache is not None:
            features = family.join_features(self.cache.get(samples))["features"]
            return {"features": features.to(family.device)}
        return {"features": family.see(family.pixels([open_sample(sample) for sample in samples]))["features"]}

    def _shared(self, count: int, embed: Callable[[Sequence[int]], Tensor]) -> Tensor:
        """The vectors of ``count`` things, each process having made its share; on the CPU, in order."""
        mine = list(range(count))[ranks.rank() :: ranks.count()]
        made = [embed(mine[at : at + self.batch_size]).cpu() for at in range(0, len(mine), self.batch_size)]
        shares = together.gather(torch.cat(made) if made else None)
        whole: Tensor = next(share for share in shares if share is not None)
        vectors = whole.new_empty(count, *whole.shape[1:])
        for rank, share in enumerate(shares):
            if share is not None:
                vectors[rank :: ranks.count()] = share
        return vectors


class RetrievalTrainer(CaptionTrainer):
    """Trains a family by the losses of ``Retriever``; the rest is the captioning trainer's."""

    def __init__(
        self,
        family: Family,
        settings: TrainSettings,
        training: Sequence[Sample],
        validating: Sequence[Sample],
        cache: FeatureCache | None,
        **arguments: Any,
    ):
        assert settings.retrieval is not None
        if settings.deepspeed or settings.fsdp:
            raise TrainingError(
                "[train.retrieval] trains with torchrun's processes, each with the whole model.",
                "Leave deepspeed and fsdp out; mini_batch_size bounds the memory.",
            )
        truth = Truth(training)
        self.retriever = Retriever(cast(RetrievalFamily, family), settings.retrieval, truth)
        validation = RetrievalValidation(
            validating, settings.retrieval, cache, settings.retrieval.mini_batch_size or settings.batch_size
        )
        super().__init__(
            family,
            validation,
            0.0,
            model=self.retriever,
            data_collator=RetrievalCollator(self.retriever.family, cache, settings.retrieval, truth),
            eval_dataset=validating,
            **arguments,
        )
        validation.precision = self.accelerator.autocast
        self._terms, self._batches = dict[str, Tensor](), 0

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of each part of a batch; only the last one's gradients go to the other processes."""
        model.train()
        settings = self.retriever.settings
        self.retriever.alpha = settings.alpha * self._risen(settings.alpha_warmup)
        self.retriever.hardness = self._risen(settings.itm_warmup)
        with self.compute_loss_context_manager():
            parts = self.retriever.parts(inputs["batch"])
        value = torch.zeros((), device=self.args.device)
        for part in parts:
            alone = nullcontext() if part is parts[-1] else self.accelerator.no_sync(model)
            with alone:
                with self.compute_loss_context_manager():
                    loss, said = model(part)
                self.accelerator.backward(loss / self.current_gradient_accumulation_steps)
            value += sum(self.retriever.weights[name] * one for name, one in said.items())
            for name, one in said.items():
                self._terms[name] = self._terms.get(name, 0.0) + one
        self._batches += 1
        mean: Tensor = value / self.current_gradient_accumulation_steps
        return mean

    def _risen(self, epochs: float) -> float:
        """What rises evenly from 0 to 1 in so many epochs."""
        return min(1.0, (self.state.epoch or 0.0) / epochs) if epochs else 1.0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Each of several losses by itself, too, unweighted: means since the last time, over all processes."""
        if "loss" in logs:
            if len(self._terms) > 1:
                every = together.gather({name: float(one) / self._batches for name, one in self._terms.items()})
                logs |= {f"loss_{name}": sum(one[name] for one in every) / len(every) for name in self._terms}
            self._terms, self._batches = {}, 0
        super().log(logs, start_time)

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """Without temperatures and other single numbers, which have no weight decay."""
        single = {name for name, parameter in model.named_parameters() if parameter.numel() == 1}
        return [name for name in super().get_decay_parameter_names(model) if name not in single]

    def leaves_out_parameters(self) -> bool:
        retriever, data = self.retriever, self.train_dataset
        slow, retriever._slow = retriever._slow, []  # which must not see this batch twice
        try:
            with torch.random.fork_rng():
                retriever.train()
                for part in retriever.parts(self.data_collator([data[0], data[len(data) - 1]])["batch"]):
                    retriever(part)[0].backward()
        finally:
            retriever._slow = slow
        left = any(p.requires_grad and p.grad is None for p in retriever.parameters())
        retriever.zero_grad(set_to_none=True)
        return left

    def _validation_loss(self) -> dict[str, float]:
        return {}  # it would depend on which images are in a batch together

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if (state := self.retriever.state()) and ranks.is_first():
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            save_file(state, folder / STATE)
        super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.retriever.state():
            self.retriever.restore(load_file(Path(resume_from_checkpoint) / STATE))
