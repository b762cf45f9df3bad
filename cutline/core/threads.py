"""Threads: work done ahead while the model computes, and how many threads a library computes with."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Sets how many threads the whole process computes with, as ``torch.set_num_threads`` does.
SetThreads = Callable[[int], None]


def keep_threads(count: int) -> None:
    """Leaves the process's threads as they are. The command line hands ``torch.set_num_threads`` in instead."""


def prefetch(
    work: Callable[[Item], Result], items: Iterable[Item], depth: int = 2, threads: int = 1
) -> Iterator[tuple[Item, Result]]:
    """Yields each item with ``work(item)``, in order, having at most ``depth`` results wait.

    Pillow lets other threads run while it decodes. An exception of ``work`` is raised when its item's turn comes.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[Item, Future[Result]]] = deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) > depth:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def cores() -> int:
    """Cores that this process may use; a container often has fewer than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
