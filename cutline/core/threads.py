"""Threads: work done in the background while the model computes, and the number of threads of a process."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Sets the number of threads of the whole process, as ``torch.set_num_threads`` does.
SetThreads = Callable[[int], None]


def keep_threads(count: int) -> None:
    """Leaves the number of threads unchanged; the command line passes ``torch.set_num_threads`` instead."""


def prefetch(
    work: Callable[[Item], Result], items: Iterable[Item], depth: int = 2, threads: int = 1
) -> Iterator[tuple[Item, Result]]:
    """Yields each item with ``work(item)``, in order, with at most ``depth`` results ready in advance.

    Pillow releases the GIL while it decodes. An exception of ``work`` is raised when its item is next.
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
    """Number of cores that this process may use, which in a container can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
