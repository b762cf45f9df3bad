"""Image–text contrast (ITC): true pairs get a higher similarity than all others of the batch.

Sources: the softmax loss, CLIP (Radford et al. 2021, arXiv:2103.00020); the sigmoid loss, SigLIP (Zhai et al. 2023,
arXiv:2303.15343); keys of a momentum encoder and soft targets, ALBEF and BLIP (Li et al. 2021, arXiv:2107.07651; 2022,
arXiv:2201.12086).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from cutline.core.config import Section
from cutline.core.errors import TrainingError
from cutline.train.objective import Context, RetrievalObjective, Step

if TYPE_CHECKING:
    from torch import Tensor

    from cutline.train.embedding_space import Chunk, EmbeddingSpace, Scale, Vectors
    from cutline.train.momentum_encoder import Keys, MomentumEncoder

#: Of a checkpoint; alike in all processes.
STATE = "momentum_encoder.safetensors"


class ItcSettings(Section):
    """Keys of ``[train.retrieval]``."""

    itc: float = Field(1.0, ge=0, description="weight of the contrastive loss (ITC)")
    loss: Literal["auto", "softmax", "sigmoid"] = Field(
        "auto",
        description="the contrastive loss: softmax over all candidates, or sigmoid for each pair; auto: the one that "
        "the family was trained with",
    )
    momentum: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="momentum of a slowly moving copy of the encoders, whose embeddings are the candidates; none: no "
        "copy",
    )
    queue: int = Field(
        0, ge=0, description="embeddings of earlier steps that stay candidates, of each kind; needs momentum"
    )
    alpha: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="weight of the momentum encoder's distribution in the target; needs momentum",
    )
    alpha_warmup: float = Field(
        1.0, ge=0, description="epochs in which alpha rises from 0; published: 1 for fine-tuning, 2 for pretraining"
    )

    @model_validator(mode="after")
    def _has_a_momentum_encoder(self) -> ItcSettings:
        if self.momentum is None and (self.queue or self.alpha):
            raise ValueError("queue and alpha need momentum, for example 0.995")
        return self


class Contrast(RetrievalObjective):
    """The mean over queries of both directions, over all processes."""

    Settings = ItcSettings
    tasks = frozenset({"embed"})
    settings: ItcSettings

    def __init__(self, settings: ItcSettings, context: Context):
        super().__init__(settings, context)
        family: Any = context.family
        self.kind = family.contrast if settings.loss == "auto" else settings.loss
        if self.kind == "sigmoid" and settings.momentum is not None:
            raise TrainingError(
                "[train.retrieval] momentum needs the softmax loss; the sigmoid loss has no momentum encoder.",
                'Leave momentum out, or set loss = "softmax".',
            )
        self.alpha = settings.alpha
        self.momentum_encoder: MomentumEncoder | None = None
        if settings.momentum is not None:
            from cutline.train.momentum_encoder import MomentumEncoder

            self.momentum_encoder = MomentumEncoder(family, settings.momentum, settings.queue)

    @classmethod
    def weight_of(cls, settings: ItcSettings, tasks: frozenset[str]) -> float:
        return settings.itc

    @classmethod
    def rehearsed(cls, settings: ItcSettings) -> dict[str, Any]:
        return {"queue": min(4, settings.queue)}

    def begin(self, space: EmbeddingSpace, chunks: Sequence[Chunk], step: Step) -> None:
        self.alpha = self.settings.alpha * step.risen(self.settings.alpha_warmup)
        if self.momentum_encoder is not None:
            chunks[0].plans[self.name] = self.momentum_encoder.keys(space, chunks)

    def of_vectors(self, space: EmbeddingSpace, vectors: Vectors, scale: Scale, chunk: Chunk) -> Tensor:
        from cutline.families.common.loss import widened
        from cutline.train.contrast import gathered, sigmoid_loss, softmax_loss

        family, batch = space.family, chunk.batch
        images, texts = batch.images.to(family.device), batch.texts.to(family.device)
        times, plus = scale
        keys: Keys | None = chunk.plans.get(self.name)
        if keys is not None:
            return self._with_keys(space, vectors, (images, texts), keys, times)
        positives = space.positives(gathered(images), gathered(texts))
        image_vectors, text_vectors = gathered(vectors.images), gathered(vectors.texts)
        logits = family.similarity(image_vectors, text_vectors) * widened(times)
        if self.kind == "sigmoid":
            return sigmoid_loss(logits if plus is None else logits + widened(plus), positives) / len(text_vectors)
        of_images = softmax_loss(logits, positives) / len(image_vectors)
        return (of_images + softmax_loss(logits.T, positives.T) / len(text_vectors)) / 2

    def _with_keys(
        self, space: EmbeddingSpace, vectors: Vectors, numbers: tuple[Tensor, Tensor], keys: Keys, times: Tensor
    ) -> Tensor:
        """This process's queries with the momentum encoder's keys of all of them."""
        import torch

        from cutline.families.common.loss import widened
        from cutline.train.contrast import softmax_loss, total

        similarity, positives, device = space.family.similarity, space.positives, space.family.device
        images, texts = numbers
        own = keys.images[: len(images)], keys.texts[: len(texts)]  # this process's own stand first
        to_texts = (
            similarity(vectors.images, keys.texts),
            similarity(own[0], keys.texts),
            positives(images, keys.text_numbers),
        )
        to_images = (
            similarity(keys.images, vectors.texts).T,
            similarity(keys.images, own[1]).T,
            positives(keys.image_numbers, texts).T,
        )
        loss = torch.zeros((), device=device)
        for logits, soft, true in (to_texts, to_images):
            one = softmax_loss(logits * widened(times), true, (soft * widened(times)).detach(), self.alpha)
            loss = loss + one / total(len(true), device)
        return loss / 2

    @contextmanager
    def without_trace(self) -> Iterator[None]:
        encoder, self.momentum_encoder = self.momentum_encoder, None
        try:
            yield
        finally:
            self.momentum_encoder = encoder

    def save(self, checkpoint: Path) -> None:
        if self.momentum_encoder is not None:
            from safetensors.torch import save_file

            save_file(self.momentum_encoder.state(), checkpoint / STATE)

    def load(self, checkpoint: Path) -> None:
        if self.momentum_encoder is not None:
            from safetensors.torch import load_file

            self.momentum_encoder.restore(load_file(checkpoint / STATE))
