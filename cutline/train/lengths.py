"""Texts grouped by length, so that short ones aren't padded to the longest."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cutline.families.base import Batch

#: A batch is cut into at most so many groups, of at least so many texts each: more cost more than they save.
GROUPS, SMALLEST = 4, 16


def by_length(texts: Batch, compute: Callable[[Batch, Tensor], Tensor]) -> Tensor:
    """What ``compute`` gives for each of M texts, computed for groups of like length: the same numbers, sooner.

    Args:
        texts: ``encode_texts``'s, padded on the right; without ``attention_mask`` the padding counts and stays.
        compute: a part of the texts, and which ones they are (int64 [K]) → [K, …].

    Returns:
        [M, …], in the order of the texts.
    """
    count = len(texts["input_ids"])
    lengths = texts["attention_mask"].sum(1) if "attention_mask" in texts else None
    if lengths is None or count < 2 * SMALLEST or int(lengths.min()) == int(lengths.max()):
        return compute(texts, torch.arange(count, device=texts["input_ids"].device))
    order = lengths.argsort(stable=True)
    results = []
    for group in torch.split(order, max(SMALLEST, -(-count // GROUPS))):
        longest = int(lengths[group[-1]])
        results.append(compute({name: tensor[group, :longest] for name, tensor in texts.items()}, group))
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(count, device=order.device)
    return torch.cat(results)[inverse]
