"""Language modelling (LM): the likelihood of the batch's captions, beside the losses of retrieval.

Source: BLIP (Li et al. 2022, arXiv:2201.12086).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from cutline.core.config import Section
from cutline.core.records import Sample
from cutline.train.objective import RetrievalObjective, Step

if TYPE_CHECKING:
    from torch import Tensor

    from cutline.families.base import Batch
    from cutline.train.embedding_space import Chunk, EmbeddingSpace


class LmSettings(Section):
    """Keys of ``[train.retrieval]``."""

    lm: float = Field(0.0, ge=0, description="weight of the captions' likelihood (LM), for models that also write")


class LanguageModelling(RetrievalObjective):
    """The negative log-likelihood of the captions, in nats a token of the whole batch, over all processes."""

    Settings = LmSettings
    tasks = frozenset({"caption"})

    @classmethod
    def weight_of(cls, settings: LmSettings, tasks: frozenset[str]) -> float:
        return settings.lm

    @staticmethod
    def collate(family: Any, samples: Sequence[Sample], visual: Batch, chunks: Sequence[range]) -> list[Batch]:
        """A captioning batch for each chunk of images, without its image side."""
        made = []
        for chunk in chunks:
            some = [samples[index] for index in chunk]
            rows = [{name: tensor[[index]] for name, tensor in visual.items()} for index in chunk]
            if "features" in visual:
                features = [{"features": row["features"][0]} for row in rows]
                batch = family.collate(some, with_targets=True, features=features)
            else:
                batch = family.collate(some, with_targets=True, pixels=rows)
            made.append({name: tensor for name, tensor in batch.items() if name not in visual})
        return made

    def begin(self, space: EmbeddingSpace, chunks: Sequence[Chunk], step: Step) -> None:
        from cutline.families.common.loss import IGNORED
        from cutline.train.contrast import total

        batches = chunks[0].batch.extra[self.name]
        tokens = total(sum(int((batch["labels"] != IGNORED).sum()) for batch in batches), space.family.device)
        for chunk, batch in zip(chunks, batches, strict=True):
            chunk.plans[self.name] = (batch, tokens)

    def of_chunk(self, space: EmbeddingSpace, chunk: Chunk, features: Batch) -> Tensor:
        batch, tokens = chunk.plans[self.name]
        own = {name: tensor.to(space.family.device) for name, tensor in batch.items()}
        nll: Tensor = space.family(own | features).nll
        return nll / float(tokens)
