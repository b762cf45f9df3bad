"""Several processes that train one model (``torchrun``): meeting, waiting, telling one another.

Everything here does nothing in a process that is alone.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from cutline.core import ranks

#: One process prepares data or looks at images for hours while the others wait.
PATIENCE = timedelta(days=7)


def meet(device: torch.device) -> None:
    """Joins the other processes. Call it before anything that they do in turn."""
    if ranks.count() == 1 or dist.is_initialized():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo", timeout=PATIENCE)


def wait() -> None:
    """Goes on when every process is here."""
    if dist.is_initialized():
        dist.all_reduce(torch.zeros(1))  # on the CPU, where waiting for long is no fault


def gather(mine: Any) -> list[Any]:
    """What each process gives, by rank; the same list in all of them."""
    if not dist.is_initialized():
        return [mine]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, mine)
    return found


def part() -> None:
    """Leaves the others, when each has finished its share."""
    if dist.is_initialized():
        wait()
        dist.destroy_process_group()
