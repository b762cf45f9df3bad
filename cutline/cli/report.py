"""``cutline report``: a run's report as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]) -> None:
    """Write a run's report: one HTML file with scores, curves, examples and the recipe."""
    from cutline.cli.terminal import say
    from cutline.core.errors import CutlineError
    from cutline.report.page import write

    if not run.is_dir():
        raise CutlineError(f"There is no run folder {run}.", "Give the folder of a run.")
    say(f"report: {write(run)}")
