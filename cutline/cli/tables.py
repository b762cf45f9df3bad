"""``cutline run`` and ``cutline demo``: what is said at the end of a run."""

from __future__ import annotations

from pathlib import Path

from cutline.cli.terminal import say
from cutline.core.run_folder import RunFolder
from cutline.metrics.evaluation import Evaluation, table


def show(evaluation: Evaluation | None, folder: Path, captioned: bool = True) -> bool:
    """Prints a run's scores on stdout, and warnings and failed images on stderr.

    Args:
        captioned: whether this run captioned.

    Returns:
        Whether every image that it captioned has a caption.
    """
    if evaluation is not None:
        from rich.console import Console

        Console().print(table(evaluation))
        for warning in evaluation.warnings:
            say(f"warning: {warning}")
    known = RunFolder(folder).stage("caption")
    if captioned and known.get("failed"):
        say(f"{known['failed']} of {known['images']} images have no caption; {folder}/predictions.jsonl says why")
        return False
    return True
