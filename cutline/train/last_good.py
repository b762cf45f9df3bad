"""The last checkpoint before a training went wrong: kept aside while a guard worries, gone back to after it stopped.

train/last-good/     the checkpoint, whole, as hard links: old ones are deleted from train/checkpoints
train/stopped.json   why and when a guard stopped the training
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

from cutline.core import ranks
from cutline.core.files import write_atomically

logger = logging.getLogger(__name__)


LAST_GOOD, STOPPED = "last-good", "stopped.json"

CHECKPOINTS = "checkpoints"


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def whole_checkpoints(folder: Path) -> dict[int, Path]:
    """Step → checkpoint, of those in a training's folder that were written to their end."""
    return {step_of(path.parent): path.parent for path in (folder / CHECKPOINTS).glob("checkpoint-*/whole")}


def keep(folder: Path, step: int) -> None:
    """Keeps the newest checkpoint that is not later than a step, if there is one and none is kept yet."""
    kept = folder / LAST_GOOD
    whole = whole_checkpoints(folder)
    good = max((number for number in whole if number <= step), default=None)
    if good is None or kept.exists() or not ranks.is_main_process():
        return
    part = folder / f"{LAST_GOOD}.part"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(whole[good], part, copy_function=_link)
    (part / "step").write_text(f"{good}\n")
    os.replace(part, kept)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)


def forget(folder: Path) -> None:
    """The training is sound again."""
    if ranks.is_main_process():
        shutil.rmtree(folder / LAST_GOOD, ignore_errors=True)


def kept_step(folder: Path) -> int | None:
    path = folder / LAST_GOOD / "step"
    return int(path.read_text()) if path.exists() else None


def go_back(folder: Path, overruled: bool = False) -> None:
    """Where a guard had stopped the training: what followed the last good checkpoint is deleted.

    Without a checkpoint that was kept nothing is; nor where the guards are overruled, since now they are turned off.
    """
    if not (folder / STOPPED).exists():
        return
    step = kept_step(folder)
    if step is None or overruled:
        (folder / STOPPED).unlink()
        return
    stopped = json.loads((folder / STOPPED).read_text(encoding="utf-8"))
    logger.warning(
        f"train: stopped at step {stopped['step']} ({stopped['reason']}); resuming from step {step}, the last good one"
    )
    good = folder / CHECKPOINTS / f"checkpoint-{step}"
    whole = whole_checkpoints(folder)
    if step not in whole:
        shutil.rmtree(good, ignore_errors=True)
        shutil.copytree(folder / LAST_GOOD, good, ignore=shutil.ignore_patterns("step"))
    for number, path in whole.items():
        if number > step:
            (path / "whole").unlink()  # half deleted, it is no checkpoint
            shutil.rmtree(path)
    _forget_the_lost_best(good)
    (folder / STOPPED).unlink()
    shutil.rmtree(folder / LAST_GOOD)


def _forget_the_lost_best(checkpoint: Path) -> None:
    """The best checkpoint of then may have given way to a later one, which is deleted now: the next one is the best."""
    path = checkpoint / "trainer_state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    best = state.get("best_model_checkpoint")
    if best and not Path(best).exists():
        state |= {"best_model_checkpoint": None, "best_metric": None, "best_global_step": None}
        write_atomically(path, json.dumps(state))
