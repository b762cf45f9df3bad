"""An exponential moving average of the trained weights, which is what is validated and kept.

Source: Polyak & Juditsky 1992; with a fixed decay as in Tarvainen & Valpola 2017, arXiv:1703.01780. After rewarded
steps it also keeps a part of the weights that likelihood found, which helps both kinds of captions, as averages of
fine-tuned models do (Wortsman et al. 2022, arXiv:2203.05482; Ramé et al. 2024, arXiv:2406.16768).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import TrainerCallback

from cutline.families.base import Family

AVERAGE = "average.safetensors"


class Average(TrainerCallback):
    """Follows a family's trainable parameters through a training.

    Args:
        family: in training; its parts are open.
        decay: what is kept of the average at each step; about the last 1 / (1 - decay) steps count.
    """

    def __init__(self, family: Family, decay: float):
        self._parameters = {name: p for name, p in family.model.named_parameters() if p.requires_grad}
        self._tensors = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._follow = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._follow(list(self._tensors.values()), [p.detach() for p in self._parameters.values()], state.global_step)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While this lasts, the family has the average's weights."""
        own = {name: p.detach().clone() for name, p in self._parameters.items()}
        self.take()
        try:
            yield
        finally:
            self._give(own)

    def take(self) -> None:
        """Gives the family the average's weights for good."""
        self._give(self._tensors)

    def _give(self, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(tensors[name])

    def save(self, folder: Path) -> None:
        """Beside a checkpoint's own weights, which training goes on from."""
        save_file({name: tensor.contiguous() for name, tensor in self._tensors.items()}, folder / AVERAGE)

    def load(self, folder: Path) -> None:
        """What ``save`` wrote."""
        for name, tensor in load_file(folder / AVERAGE).items():
            self._tensors[name].copy_(tensor)
