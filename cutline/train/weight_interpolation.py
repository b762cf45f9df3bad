"""Weights between those from before an objective starts and those that it leads to, which are validated and kept.

For objectives that easily go too far, such as a reward: greedy captions still get better when beam search's get worse.
Source: Wortsman et al. 2022, arXiv:2109.01903, for models before and after fine-tuning; Ramé et al. 2024,
arXiv:2406.16768, for rewards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback

from cutline.families.base import Family

BEFORE = "before.safetensors"


class WeightInterpolation(TrainerCallback):
    """Remembers a family's trainable parameters as they were before the objective's first step.

    Args:
        family: in training; its parts are open.
        share: share of the current weights, the rest being those from before; 1 gives the current ones.
        begin: number of steps before the objective's first one.
    """

    def __init__(self, family: Family, share: float, begin: int):
        self._parameters = {name: p for name, p in family.model.named_parameters() if p.requires_grad}
        self._share, self._begin = share, begin
        self._before: dict[str, Tensor] = {}

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self._begin:
            self._before = self._now()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While this lasts, the family has the weights between."""
        now = self._now()
        self.take()
        try:
            yield
        finally:
            self._give(now)

    def take(self) -> None:
        """Gives the family the weights between for good; before the objective starts they are the current ones."""
        now = self._now()
        self._give({name: before.lerp(now[name], self._share) for name, before in self._before.items()})

    def _now(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self._parameters.items()}

    def _give(self, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in tensors.items():
                self._parameters[name].copy_(tensor)

    def save(self, folder: Path) -> None:
        """Beside a checkpoint's own weights, which training resumes from; nothing before the objective starts."""
        if self._before:
            save_file({name: tensor.contiguous() for name, tensor in self._before.items()}, folder / BEFORE)

    def load(self, folder: Path) -> None:
        """What ``save`` wrote."""
        path = folder / BEFORE
        saved = load_file(path) if path.exists() else {}
        self._before = {name: tensor.to(self._parameters[name].device) for name, tensor in saved.items()}
