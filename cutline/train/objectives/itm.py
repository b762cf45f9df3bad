"""Image–text matching (ITM): whether an image and a text belong together, learnt from true pairs and hard negatives.

Source: ALBEF (Li et al. 2021, arXiv:2107.07651, section 3.2), BLIP (Li et al. 2022, arXiv:2201.12086).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from cutline.core.config import Section
from cutline.train.objective import Context, RetrievalObjective, Step

if TYPE_CHECKING:
    from torch import Tensor

    from cutline.families.base import Batch
    from cutline.train.embedding_space import Chunk, EmbeddingSpace, Vectors
    from cutline.train.hard_negatives import Pairs

#: Pairs for each text of a chunk that are matched with their activations in memory; of more, some are computed twice.
MOST_PAIRS = 6


class ItmSettings(Section):
    """Keys of ``[train.retrieval]``."""

    itm: float | Literal["auto"] = Field(
        "auto",
        description="weight of image–text matching (ITM) with hard negatives; auto: 1 for models that match, else 0",
    )
    itm_share: float = Field(
        1.0, gt=0, le=1, description="share of a batch's captions that ITM learns from, drawn for each batch; 1: all"
    )
    itm_warmup: float = Field(
        0.0,
        ge=0,
        description="epochs in which ITM's negatives turn from random into hard ones, which a matching head from "
        "scratch needs; 0: hard from the beginning, as published",
    )

    @model_validator(mode="after")
    def _weight(self) -> ItmSettings:
        if self.itm != "auto" and self.itm < 0:
            raise ValueError("itm is below 0")
        return self


@dataclass(frozen=True)
class Plan:
    """What a chunk matches.

    Attributes:
        pairs: images count from the chunk's first one; texts are indices into ``candidates``.
        candidates: the captions of all processes.
        total: pairs of the whole batch, over all processes, divided by the number of processes.
    """

    pairs: Pairs
    candidates: Sequence[str]
    total: float


class Matching(RetrievalObjective):
    """The mean over pairs of the cross-entropy of "it matches"."""

    Settings = ItmSettings
    tasks = frozenset({"match"})
    settings: ItmSettings

    def __init__(self, settings: ItmSettings, context: Context):
        super().__init__(settings, context)
        #: How hard negatives are: 0 are random ones, 1 those that the published loss draws.
        self.hardness = 1.0

    @classmethod
    def weight_of(cls, settings: ItmSettings, tasks: frozenset[str]) -> float:
        return float("match" in tasks) if settings.itm == "auto" else settings.itm

    def begin(self, space: EmbeddingSpace, chunks: Sequence[Chunk], step: Step) -> None:
        self.hardness = step.risen(self.settings.itm_warmup)

    def plan(self, space: EmbeddingSpace, vectors: Vectors, chunks: Sequence[Chunk]) -> None:
        """Draws the pairs of this process's images.

        They are drawn among the images and captions of all processes, by each of them alike; then each takes the
        pairs of its own images, so that of the others only captions have to be sent.
        """
        import torch

        from cutline.families.common.loss import widened
        from cutline.train.contrast import before, gathered, total
        from cutline.train.distributed import all_gather_object
        from cutline.train.hard_negatives import draw

        family, batch = space.family, chunks[0].batch
        device = family.device
        seed = int(torch.randint(2**62, ()))
        every = all_gather_object((batch.captions, seed))
        generator = torch.Generator(device).manual_seed(every[0][1])
        first = before(len(batch.images), device)
        images, texts = gathered(vectors.images.detach()), gathered(vectors.texts.detach())
        positives = space.positives(gathered(batch.images.to(device)), gathered(batch.texts.to(device)))
        rows = gathered(batch.rows.to(device) + first)
        logits = family.similarity(images, texts) * widened(space.scale()[0])
        drawn = draw(logits, positives, rows, generator, self.settings.itm_share, self.hardness)
        own = drawn.of_images(first, first + len(batch.images))
        candidates = [caption for captions, _ in every for caption in captions]
        pairs = total(len(own.labels), device)
        for chunk in chunks:
            chunk.plans[self.name] = Plan(own.of_images(chunk.first, chunk.last), candidates, pairs)

    def of_chunk(self, space: EmbeddingSpace, chunk: Chunk, features: Batch) -> Tensor:
        import torch

        from cutline.train.hard_negatives import Pairs

        plan: Plan = chunk.plans[self.name]
        first, last = chunk.texts
        if len(plan.pairs.labels):
            sums = self._sum(space, features, plan.pairs, plan.candidates, last - first)
        else:  # no pair was drawn here; other processes still wait for the matching head's gradient
            nothing = torch.zeros(1, dtype=torch.int64, device=space.family.device)
            own = chunk.batch.captions[first:][:1]
            sums = 0 * self._sum(space, features, Pairs(nothing, nothing, nothing), own, last - first)
        return sums / plan.total

    def _sum(
        self, space: EmbeddingSpace, features: Batch, pairs: Pairs, candidates: Sequence[str], captions: int
    ) -> Tensor:
        """The sum over pairs of the cross-entropy of "it matches"."""
        import torch
        from torch.nn import functional as F
        from torch.utils.checkpoint import checkpoint

        from cutline.families.common.loss import widened
        from cutline.train.lengths import by_length

        family = space.family
        texts = family.encode_texts([candidates[index] for index in pairs.texts.tolist()])

        def summed(some: Tensor) -> Tensor:
            these = {name: tensor[some] for name, tensor in texts.items()}
            logits = by_length(these, lambda few, rows: family.match_logits(features, few, pairs.images[some][rows]))
            return F.cross_entropy(widened(logits), pairs.labels[some], reduction="sum")

        # three for each text on average; an image that many texts are taken for has more than memory may hold
        many = MOST_PAIRS * max(1, round(self.settings.itm_share * captions))
        pieces = torch.split(torch.arange(len(pairs.labels), device=pairs.labels.device), many)
        if len(pieces) == 1:
            return summed(pieces[0])
        sums: list[Any] = [checkpoint(summed, piece, use_reentrant=False) for piece in pieces]
        return torch.stack(sums).sum()
