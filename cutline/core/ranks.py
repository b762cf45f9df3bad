"""The rank of this process among those that ``torchrun`` started; 0 when there is only one."""

from __future__ import annotations

import os


def rank() -> int:
    """This process's number, from 0."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """Number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local() -> int | None:
    """This process's number on its machine, which is its GPU's; None when it was not started by ``torchrun``."""
    return int(os.environ["LOCAL_RANK"]) if "LOCAL_RANK" in os.environ else None


def is_main_process() -> bool:
    """Whether this process writes files and messages; the others only compute."""
    return rank() == 0
