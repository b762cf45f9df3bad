"""Contrastive losses over image and text vectors, where captions of one image are never each other's negatives.

Sources: softmax over all candidates, CLIP (Radford et al. 2021, arXiv:2103.00020), with soft targets from a momentum
encoder as in ALBEF and BLIP (Li et al. 2021, arXiv:2107.07651; 2022, arXiv:2201.12086); pair by pair, SigLIP (Zhai et
al. 2023, arXiv:2303.15343). Shapes: N images, R texts, E width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F


def softmax_loss(logits: Tensor, positives: Tensor, soft: Tensor | None = None, share: float = 0.0) -> Tensor:
    """The cross-entropy of each query with its true candidates, which share the target equally; the sum over queries.

    Args:
        logits: [Q, M].
        positives: bool [Q, M], at least one in each row.
        soft: [Q, M] another model's logits, whose distribution is a part of the target.
        share: how much of the target that part is.
    """
    target = positives.to(logits.dtype)
    target = target / target.sum(1, keepdim=True)
    if soft is not None and share:
        target = share * soft.softmax(1) + (1 - share) * target
    return -(target * logits.log_softmax(1)).sum()


def sigmoid_loss(logits: Tensor, positives: Tensor) -> Tensor:
    """The sum over all pairs of the binary cross-entropy of "it is a true pair"; SigLIP divides it by the texts."""
    return F.binary_cross_entropy_with_logits(logits, positives.to(logits.dtype), reduction="sum")


def gathered(mine: Tensor) -> Tensor:
    """The rows of all processes, by rank, each of which may have another number of them.

    Gradients: every process computes the same loss from what is gathered, and DDP takes the mean of the gradients over
    processes; so the gradient of a process's own rows is multiplied by the number of processes.
    """
    return _Gathered.apply(mine) if dist.is_initialized() else mine  # type: ignore[no-untyped-call]


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: Tensor) -> Tensor:
        world, rank = dist.get_world_size(), dist.get_rank()
        counts = [torch.zeros(1, dtype=torch.int64, device=mine.device) for _ in range(world)]
        dist.all_gather(counts, torch.tensor([len(mine)], device=mine.device))
        sizes = [int(count) for count in counts]
        padded = mine.new_zeros(max(sizes), *mine.shape[1:])
        padded[: len(mine)] = mine
        found = [torch.empty_like(padded) for _ in range(world)]
        dist.all_gather(found, padded)
        ctx.own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        ctx.world = world
        return torch.cat([rows[:size] for rows, size in zip(found, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        own: Tensor = gradient[ctx.own] * ctx.world
        return own


def before(count: int, device: torch.device) -> int:
    """How many rows the processes in front of this one have, each ``count`` of its own."""
    if not dist.is_initialized():
        return 0
    counts = gathered(torch.tensor([count], device=device))
    return int(counts[: dist.get_rank()].sum())


def total(count: int | Tensor, device: torch.device) -> float:
    """A number summed over processes, divided by how many they are: what a process's own sum is divided by, so that
    DDP's mean of gradients is the gradient of the mean over everything."""
    if not dist.is_initialized():
        return float(count)
    found = torch.tensor(float(count), device=device)
    dist.all_reduce(found)
    return float(found) / dist.get_world_size()


class Queue:
    """The newest K vectors of earlier steps, with whose they are; empty at first.

    The published code fills it with random vectors instead; here what isn't known yet is no negative.
    """

    def __init__(self, size: int):
        self.size = size
        self.vectors: Tensor | None = None  # [K, …]
        self.owners: Tensor | None = None  # int64 [K]

    def join(self, vectors: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
        """These, then what is in the queue."""
        if self.vectors is None or self.owners is None:
            return vectors, owners
        return torch.cat([vectors, self.vectors.to(vectors.device)]), torch.cat([owners, self.owners.to(owners.device)])

    def push(self, vectors: Tensor, owners: Tensor) -> None:
        """Puts these in front; the oldest fall out."""
        if not self.size:
            return
        vectors, owners = self.join(vectors.detach(), owners)
        self.vectors, self.owners = vectors[: self.size].clone(), owners[: self.size].clone()

    def state(self, name: str) -> dict[str, Tensor]:
        if self.vectors is None or self.owners is None:
            return {}
        return {f"{name}.vectors": self.vectors.contiguous(), f"{name}.owners": self.owners.contiguous()}

    def restore(self, name: str, state: dict[str, Tensor]) -> None:
        self.vectors, self.owners = state.get(f"{name}.vectors"), state.get(f"{name}.owners")
