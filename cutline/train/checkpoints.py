"""Checkpoints of a training: what is trained, and buffers; frozen weights are in the checkpoint that was opened."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cutline.core import ranks
from cutline.core.errors import TrainingError
from cutline.core.files import replaced
from cutline.families.base import Family
from cutline.train import distributed

WEIGHTS = "trained.safetensors"
#: Written last into a checkpoint; one without it was interrupted.
WHOLE = "whole"


def trained_state(family: Family) -> dict[str, Tensor]:
    """The trainable parameters and the buffers that are saved with a model, each under its name in ``family.model``."""
    saved = family.model.state_dict()
    state = {name: p.detach() for name, p in family.model.named_parameters() if p.requires_grad}
    state |= {name: buffer for name, buffer in family.model.named_buffers() if name in saved}
    return {name: tensor.contiguous() for name, tensor in state.items()}


def save_trained(family: Family, folder: Path) -> None:
    """Writes what is trained into a folder; the file is there whole or not at all."""
    with replaced(folder / WEIGHTS) as temporary:  # processes that train together may all write here
        save_file(trained_state(family), temporary)


def load_trained(family: Family, checkpoint: Path) -> None:
    """Puts a checkpoint's tensors back into the family.

    Raises:
        TrainingError: the checkpoint holds other tensors than are trained now.
    """
    saved, wanted = load_file(checkpoint / WEIGHTS), trained_state(family)
    if saved.keys() != wanted.keys():
        different = sorted(saved.keys() ^ wanted.keys())
        raise TrainingError(
            f"{checkpoint} was trained with other parts open (for example {different[0]}).",
            "Give another --out, or delete its train/checkpoints folder to start over.",
        )
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(saved[name])


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was completed; interrupted ones are deleted."""
    if not ranks.is_main_process():
        distributed.barrier()
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for path in checkpoints:
        if not (path / WHOLE).exists():
            shutil.rmtree(path)
    whole = [path for path in checkpoints if path.exists()]
    if ranks.is_main_process():
        distributed.barrier()
    return whole[-1] if whole else None
