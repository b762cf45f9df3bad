"""Several processes that train one model (``torchrun``).

With a single process, everything here does nothing.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from cutline.core import ranks

#: One process prepares data or looks at images for hours while the others wait.
PATIENCE = timedelta(days=7)


def init(device: torch.device) -> None:
    """Joins the other processes. Call it before anything that only one of them does."""
    if ranks.count() == 1 or dist.is_initialized():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo", timeout=PATIENCE)


def barrier() -> None:
    """Waits for all processes."""
    if dist.is_initialized():
        dist.all_reduce(torch.zeros(1))  # on the CPU, where a long wait is no error


def all_gather_object(mine: Any) -> list[Any]:
    """Every process's value, by rank; the same list in all of them."""
    if not dist.is_initialized():
        return [mine]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, mine)
    return found


def destroy() -> None:
    """Leaves the other processes, without waiting for them."""
    if dist.is_initialized():
        dist.destroy_process_group()
