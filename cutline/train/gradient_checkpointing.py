"""Gradient checkpointing: activations are computed again in the backward pass instead of kept.

Source: Chen et al. 2016, arXiv:1604.06174. Always without re-entrance: the re-entrant kind gives no gradient to what
lies over frozen inputs, adapters for example, silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from cutline.core.errors import TrainingError
from cutline.families.base import Family


@contextmanager
def gradient_checkpointing(family: Family, wanted: bool) -> Iterator[None]:
    """While this lasts, the layers of a model keep only what goes into them.

    Hugging Face's layers do so in training mode. Layers without a trainable weight stand in eval mode, so that they
    have no dropout; where a gradient passes through them (a frozen language model over a bridge that learns) their
    activations fill the memory as well, so these are made to recompute here.

    Raises:
        TrainingError: the model's code can't do it.
    """
    if not wanted:
        yield
        return
    model = family.model
    if not model.supports_gradient_checkpointing:
        raise TrainingError(
            f"{family.name()} has no gradient checkpointing.", "Set [train] gradient_checkpointing = false."
        )
    model.activation_checkpointing_enable({"use_reentrant": False})
    frozen = [
        layer
        for layer in model.modules()
        if isinstance(layer, GradientCheckpointingLayer) and not any(p.requires_grad for p in layer.parameters())
    ]
    for layer in frozen:
        layer.forward = partial(_twice, layer.forward)
    try:
        yield
    finally:
        for layer in frozen:
            del layer.forward
        model.activation_checkpointing_disable()


def _twice(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    given = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    if torch.is_grad_enabled() and any(value.requires_grad for value in given):
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)
    return forward(*args, **kwargs)  # generation, or a tower that no gradient enters
