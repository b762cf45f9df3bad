"""Which of the processes that ``torchrun`` started this one is. Alone, it is the first."""

from __future__ import annotations

import os


def rank() -> int:
    """This process's number, from 0."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local() -> int | None:
    """This process's number on its machine, which is its GPU's; None when it was not started by ``torchrun``."""
    return int(os.environ["LOCAL_RANK"]) if "LOCAL_RANK" in os.environ else None


def is_main_process() -> bool:
    """Whether this process writes, talks and keeps the run folder; the others compute."""
    return rank() == 0
