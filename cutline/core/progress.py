"""Progress bars that the caller provides: long work takes ``bars``, which by default shows nothing.

The command line hands in bars of a terminal (``cutline.cli.terminal.bar``); a notebook can hand in its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

#: Called with the number done and the total.
Progress = Callable[[int, int], None]
#: Opens a bar for a label: ``with bars("captioning") as progress: progress(3, 10)``.
Bars = Callable[[str], AbstractContextManager[Progress]]


@contextmanager
def silent(label: str) -> Iterator[Progress]:
    """Bars that show nothing."""
    yield lambda done, total: None
