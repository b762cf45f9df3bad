"""Progress bars on stderr; silent when that is not a terminal, and in all processes of a training but the first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cutline.core import ranks

#: Called with how many are done and how many there are.
Progress = Callable[[int, int], None]


@contextmanager
def bar(label: str) -> Iterator[Progress]:
    """A bar with the count, the time passed and the time left; set by calling what it yields."""
    if not sys.stderr.isatty() or not ranks.is_first():
        yield lambda done, total: None
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task(label, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def say(text: str) -> None:
    """One line of talk on stderr, from the first of several processes."""
    if ranks.is_first():
        print(text, file=sys.stderr, flush=True)
