"""Any Hugging Face vision model, or the VGG of `vgg.py`, as a tower: an image in, cells with a vector each out."""

from __future__ import annotations

import inspect

import torch
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from . import vgg  # noqa: F401  makes "cutline_vgg" known to AutoModel


def build_tower(config: PreTrainedConfig) -> PreTrainedModel:
    """The vision model of `config` with random weights, where possible without a pooler, which would never learn."""
    accepts = inspect.signature(AutoModel._model_mapping[type(config)].__init__).parameters
    return AutoModel.from_config(config, **({"add_pooling_layer": False} if "add_pooling_layer" in accepts else {}))


def as_cells(features: torch.Tensor) -> torch.Tensor:
    """A map [N, C, H, W] -> cells [N, T, C], row by row of the grid; tokens [N, T, C] are cells already."""
    return features.flatten(2).transpose(1, 2) if features.dim() == 4 else features


@torch.no_grad()
def channels_of(tower: PreTrainedModel) -> int:
    """C, asked of the tower itself: every architecture's config has another name for it."""
    config = tower.config
    side = getattr(config, "image_size", 64)
    height, width = (side, side) if isinstance(side, int) else side
    channels = getattr(config, "num_channels", 3)
    blank = torch.zeros(1, channels, height, width, dtype=tower.dtype, device=tower.device)
    return as_cells(tower.eval()(blank).last_hidden_state).shape[-1]
