"""A slowly following copy of the encoders, whose vectors are the keys of the contrastive loss, with those of earlier
steps kept in a queue.

Source: MoCo (He et al. 2020, arXiv:1911.05722); for images and texts, with soft targets, ALBEF and BLIP (Li et al.
2021, arXiv:2107.07651; 2022, arXiv:2201.12086).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cutline.families.common.retrieval import RetrievalFamily
from cutline.train.contrast import Queue, before, gathered
from cutline.train.embedding_space import Chunk, EmbeddingSpace


class Keys(NamedTuple):
    """The momentum encoder's vectors of a batch, then the queue, and their numbers in ``PositivePairs``."""

    images: Tensor
    texts: Tensor
    image_numbers: Tensor
    text_numbers: Tensor


class MomentumEncoder:
    """The momentum encoder of a family in training, and the queues.

    Frozen parameters aren't copied: they are the family's own.

    Args:
        family: its parts are open.
        momentum: what is kept of the copy at each step.
        queue: vectors of each kind that are kept.
    """

    def __init__(self, family: RetrievalFamily, momentum: float, queue: int):
        shared = {id(p): p for p in family.model.parameters() if not p.requires_grad}
        keep = [*shared.values(), family.tokenizer, family.image_processor]
        self.family = copy.deepcopy(family, {id(one): one for one in keep})
        self.momentum = momentum
        ours, theirs = dict(family.model.named_parameters()), dict(self.family.model.named_parameters())
        self._pairs = {name: (theirs[name], p) for name, p in ours.items() if p.requires_grad}
        self.family.requires_grad_(False).eval()  # of shared parameters nothing changes by that
        self._buffers = list(zip(self.family.model.buffers(), family.model.buffers(), strict=True))
        self.images, self.texts = Queue(queue), Queue(queue)

    @torch.no_grad()
    def follow(self) -> None:
        """One step after the family's weights."""
        for slow, fast in self._pairs.values():
            slow.lerp_(fast.to(slow.dtype), 1 - self.momentum)
        for own, fast in self._buffers:  # statistics of a BatchNorm, which are a moving average already
            own.copy_(fast)

    def keys(self, space: EmbeddingSpace, chunks: Sequence[Chunk]) -> Keys:
        """Follows the family, embeds the batch of this process, and puts the vectors of all processes into the queues.

        Its own vectors come first. Nothing of the batch is in a queue twice: the queues are joined before the push.
        """
        self.follow()
        batch, device = chunks[0].batch, space.family.device
        joined = []
        with torch.no_grad():
            embedded = [space.embed(chunk, self.family)[0] for chunk in chunks]
            numbers = batch.images.to(device), batch.texts.to(device)
            vectors = [torch.cat(some) for some in zip(*embedded, strict=True)]
            for own, of, queue in zip(vectors, numbers, (self.images, self.texts), strict=True):
                joined.append(queue.join(*_own_first(own, of)))
                queue.push(gathered(own), gathered(of))
        (images, image_numbers), (texts, text_numbers) = joined
        return Keys(images, texts, image_numbers, text_numbers)

    def state(self) -> dict[str, Tensor]:
        weights = {f"slow.{name}": slow.detach().contiguous() for name, (slow, _) in self._pairs.items()}
        return weights | self.images.state("images") | self.texts.state("texts")

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        for name, (slow, _) in self._pairs.items():
            slow.copy_(state[f"slow.{name}"])
        device = self.family.device
        here = {name: tensor.to(device) for name, tensor in state.items() if not name.startswith("slow.")}
        self.images.restore("images", here)
        self.texts.restore("texts", here)


def _own_first(own: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of all processes, this one's in front, and their numbers."""
    every, of = gathered(own), gathered(numbers)
    first = before(len(own), own.device)
    rest = torch.ones(len(every), dtype=torch.bool, device=own.device)
    rest[first : first + len(own)] = False
    return torch.cat([own, every[rest]]), torch.cat([numbers, of[rest]])
