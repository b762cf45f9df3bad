"""The terminal: messages and progress bars on stderr; results go to stdout."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cutline.core import ranks
from cutline.core.progress import Progress


class _Messages(logging.Handler):
    """Writes each message as a plain line to stderr, only in the first process of a training."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            warning = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
            say(warning + self.format(record))
        except Exception:  # a message that can't be written must not stop the work
            self.handleError(record)


def install() -> None:
    """Shows the messages of ``logging.getLogger("cutline")`` from INFO on. A second call changes nothing.

    The messages still reach the root logger, which has no handler in a process of the command line.
    """
    logger = logging.getLogger("cutline")
    if not any(isinstance(handler, _Messages) for handler in logger.handlers):
        logger.addHandler(_Messages())
    logger.setLevel(logging.INFO)


def say(text: str) -> None:
    """Writes one line to stderr, only in the first process of a training."""
    if ranks.is_main_process():
        print(text, file=sys.stderr, flush=True)


def set_threads(count: int) -> None:
    """Sets the number of threads of the process."""
    import torch

    torch.set_num_threads(count)


@contextmanager
def bar(label: str) -> Iterator[Progress]:
    """A progress bar with the count, the time passed and the time left.

    Shows nothing when stderr is not a terminal, nor in other processes than the first of a training.
    """
    if not sys.stderr.isatty() or not ranks.is_main_process():
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
