"""A family in training for retrieval: the losses of a batch of images and texts, whole or in chunks.

In chunks the loss and its gradient are those of the whole batch, but only the activations of one chunk are in memory.
Source: gradient caching (Gao et al. 2021, arXiv:2101.06983): every chunk is embedded without keeping activations; the
loss of all vectors gives a gradient for each vector; every chunk is embedded again, with activations, and the cached
gradients of its vectors flow on to the weights. Losses of a chunk's features are added in that second pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cutline.core.errors import TrainingError
from cutline.core.records import Sample
from cutline.families.common.feature_cache import FeatureCache
from cutline.families.common.retrieval import RetrievalFamily
from cutline.families.meta import without_weights
from cutline.train import objectives
from cutline.train.embedding_space import Chunk, EmbeddingSpace, RandomState, RetrievalBatch, Scale, Vectors
from cutline.train.learner import Learner, Output
from cutline.train.objective import Context, RetrievalObjective, Step
from cutline.train.positives import PositivePairs
from cutline.train.settings import TrainSettings

#: Of a checkpoint, for families whose model keeps no temperature.
TEMPERATURE = "temperature.safetensors"


class RetrievalCollator:
    """Examples → ``{"batch": RetrievalBatch}``; cached features instead of pixels where there is a cache.

    Args:
        family: in training.
        cache: features of the images, when the vision part is frozen.
        positives: numbers of images and texts.
        chunk_size: images in a chunk; None: all of a batch.
        wanted: names of the objectives in training.
    """

    def __init__(
        self,
        family: RetrievalFamily,
        cache: FeatureCache | None,
        positives: PositivePairs,
        chunk_size: int | None,
        wanted: Sequence[str],
    ):
        self.family, self.cache, self.positives = family, cache, positives
        self.chunk_size, self.wanted = chunk_size, wanted

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"family": without_weights(self.family)}  # as Collator does for a loader's workers

    def __call__(self, samples: Sequence[Sample]) -> dict[str, RetrievalBatch]:
        features = self.cache.get(samples) if self.cache else None
        visual = self.family.image_inputs(samples, None, None, features)
        captions = [caption for sample in samples for caption in sample.captions]
        batch = RetrievalBatch(
            visual=visual,
            captions=captions,
            rows=torch.tensor([row for row, sample in enumerate(samples) for _ in sample.captions]),
            images=torch.tensor([self.positives.images[sample.extra["index"]] for sample in samples]),
            texts=torch.tensor(self.positives.texts(captions)),
        )
        chunks = ranges(len(samples), self.chunk_size)
        for name in self.wanted:
            objective = objectives.find()[name]
            assert issubclass(objective, RetrievalObjective)
            batch.extra[name] = objective.collate(self.family, samples, visual, chunks)
        return {"batch": batch}


class RetrievalLearner(Learner[RetrievalObjective]):
    """Adds up the losses of ``[train.retrieval]``.

    Args:
        settings: the ``[train]`` section.
        context: the family and its samples.

    Raises:
        TrainingError: the family can't do what the settings ask for.
    """

    kind = RetrievalObjective

    def __init__(self, settings: TrainSettings, context: Context):
        super().__init__(settings, context)
        assert settings.retrieval is not None
        if not isinstance(context.family, RetrievalFamily):
            raise TrainingError(
                f"[train.retrieval]: this {context.family.name()} model can't embed images and texts.",
                "Give a checkpoint of clip, siglip, align, or a BLIP or BLIP-2 matcher, or leave the section out.",
            )
        if settings.deepspeed or settings.fsdp:
            raise TrainingError(
                "[train.retrieval] can't be combined with deepspeed or fsdp: each process holds the whole model.",
                "Leave deepspeed and fsdp out; mini_batch_size bounds the memory.",
            )
        self.chunk_size = settings.retrieval.mini_batch_size
        self.space = EmbeddingSpace(context.family, PositivePairs(context.samples))

    def collator(self) -> RetrievalCollator:
        names = [objective.name for objective in self.objectives]
        return RetrievalCollator(self.space.family, self.context.cache, self.space.positives, self.chunk_size, names)

    def save(self, checkpoint: Path) -> None:
        super().save(checkpoint)
        if self.space.temperature is not None:
            save_file({"temperature": self.space.temperature.detach()}, checkpoint / TEMPERATURE)

    def load(self, checkpoint: Path) -> None:
        super().load(checkpoint)
        if self.space.temperature is not None:
            with torch.no_grad():
                self.space.temperature.copy_(load_file(checkpoint / TEMPERATURE)["temperature"])

    def trial(self, batch: Any) -> None:
        """Gradients of one batch, which leaves no other trace."""
        with ExitStack() as stack:
            for objective in self.objectives:
                stack.enter_context(objective.without_trace())
            for chunk in self.chunks(batch, list, Step()):
                self(chunk).loss.backward()

    def chunks(self, batch: Any, samples: Callable[[], Sequence[Any]], step: Step) -> Sequence[Chunk]:
        """The passes that a batch takes: one, or where it is cut into chunks one for each of them."""
        whole: RetrievalBatch = batch["batch"]
        self.space.bound_scale()
        chunks = [
            Chunk(whole, part.start, part.stop, step.batches) for part in ranges(len(whole.images), self.chunk_size)
        ]
        for objective in self.objectives:
            objective.begin(self.space, chunks, step)
        if len(chunks) > 1:
            self._cache_gradients(chunks)
        return chunks

    def _cache_gradients(self, chunks: Sequence[Chunk]) -> None:
        """The first pass over chunks: the gradient of each vector, and the plans that need all vectors."""
        embedded = []
        for chunk in chunks:
            chunk.random = RandomState(self.space.family.device)
            with torch.no_grad():
                embedded.append(self.space.embed(chunk)[0])
            chunk.cached_gradients = {}
        vectors = Vectors(*(torch.cat(some).requires_grad_() for some in zip(*embedded, strict=True)))
        last = chunks[-1]  # the pass in which processes exchange their gradients
        for objective in self.objectives:
            with torch.enable_grad(), self.space.exact():
                scale = self.space.scale()
                loss = objective.of_vectors(self.space, vectors, scale, chunks[0])
                if loss is None:
                    continue
                wanted = [*vectors, *_learnt(scale)]
                images, texts, *rest = torch.autograd.grad(loss, wanted, allow_unused=True)
            for chunk in chunks:
                first, end = chunk.texts
                assert chunk.cached_gradients is not None
                chunk.cached_gradients[objective.name] = (
                    images[chunk.first : chunk.last],
                    texts[first:end],
                    *(rest if chunk is last else ()),
                )
            last.values[objective.name] = loss.detach()
        self._plan(vectors, chunks)

    def _plan(self, vectors: Vectors, chunks: Sequence[Chunk]) -> None:
        with torch.no_grad(), self.space.exact():
            for objective in self.objectives:
                objective.plan(self.space, vectors, chunks)

    def forward(self, chunk: Chunk) -> Output:
        again: AbstractContextManager[None] = chunk.random.again() if chunk.random else nullcontext()
        with again:
            vectors, features = self.space.embed(chunk)
        values = dict(chunk.values)
        if chunk.cached_gradients is None:
            of_vectors = self._of_vectors(vectors, chunk)
            self._plan(vectors, [chunk])
            values |= {name: one.detach() for name, one in of_vectors.items()}
        else:
            of_vectors = self._from_cache(vectors, chunk.cached_gradients)
        loss = vectors.texts.new_zeros(())
        for objective in self.objectives:
            if objective.name in of_vectors:
                loss = loss + objective.weight * of_vectors[objective.name]
            if (share := objective.of_chunk(self.space, chunk, features)) is not None:
                loss = loss + objective.weight * share
                values[objective.name] = values.get(objective.name, 0) + share.detach()
        weights = {objective.name: objective.weight for objective in self.objectives}
        value = sum((weights[name] * one for name, one in values.items()), loss.new_zeros(()))
        return Output(loss / chunk.batches, value.detach() / chunk.batches, values)

    def _of_vectors(self, vectors: Vectors, chunk: Chunk) -> dict[str, Tensor]:
        with self.space.exact():
            scale = self.space.scale()
            losses = {one.name: one.of_vectors(self.space, vectors, scale, chunk) for one in self.objectives}
        return {name: loss for name, loss in losses.items() if loss is not None}

    def _from_cache(self, vectors: Vectors, cached: dict[str, tuple[Tensor | None, ...]]) -> dict[str, Tensor]:
        """Scalars whose gradients for vectors and scale are the cached ones."""
        own = [*vectors, *_learnt(self.space.scale())]
        losses = {}
        for name, gradients in cached.items():
            loss = vectors.texts.new_zeros(())
            for one, gradient in zip(own, gradients, strict=False):
                if gradient is not None and one.requires_grad:
                    loss = loss + (one * gradient).sum()
            losses[name] = loss
        return losses


def _learnt(scale: Scale) -> list[Tensor]:
    return [one for one in scale if one is not None and one.requires_grad]


def ranges(count: int, size: int | None) -> list[range]:
    """``range(count)`` in pieces of at most ``size``."""
    size = size or count
    return [range(first, min(first + size, count)) for first in range(0, count, size)]
