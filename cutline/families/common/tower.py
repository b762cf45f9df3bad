"""Features from inside a vision tower: from which layer, and which of its parameters that leaves without a use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def hidden_at(tower: Any, pixels: Tensor, layers: int | Sequence[int], strategy: str) -> Tensor:
    """Hidden states as LLaVA's configuration names them.

    Args:
        tower: a Hugging Face vision model.
        pixels: [N, 3, H, W]
        layers: index of the hidden states, 0 being the embeddings; several are joined along the width.
        strategy: "default" leaves the class token out, "full" keeps all.

    Returns:
        [N, T, C]
    """
    wanted = [layers] if isinstance(layers, int) else list(layers)
    states = tower(pixels, output_hidden_states=wanted, return_dict=True).hidden_states
    first = 1 if strategy == "default" else 0
    return torch.cat([states[layer][:, first:] for layer in wanted], -1)


def unused_after(config: Any, layers: int | Sequence[int]) -> str:
    """A regex over parameter names: the layers of ``model.vision_tower`` behind the last one that is read, and what
    follows them.

    Args:
        config: of the vision tower.
        layers: see ``hidden_at``.
    """
    depth = config.num_hidden_layers
    wanted = [layers] if isinstance(layers, int) else list(layers)
    first = max(layer if layer >= 0 else depth + 1 + layer for layer in wanted)
    idle = [re.escape(f"encoder.layers.{layer}.") for layer in range(first, depth)]
    return rf"model\.vision_tower\.(?:vision_model\.)?(?:{'|'.join([*idle, 'post_layernorm', 'head'])})"
