"""Gradient checkpointing: activations are computed again in the backward pass instead of kept.

Source: Chen et al. 2016, arXiv:1604.06174. Always non-reentrant: reentrant checkpointing silently gives no gradient to
weights that follow inputs without one, adapters in a frozen model for example.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from cutline.core.errors import TrainingError
from cutline.families.base import Family


@contextmanager
def gradient_checkpointing(family: Family, enabled: bool) -> Iterator[None]:
    """Within this context, the layers of a model keep only their inputs for the backward pass.

    Hugging Face's layers checkpoint in training mode only. Frozen layers are in eval mode, so that they have no
    dropout, yet where a gradient passes through them (a frozen language model after a trained bridge) their activations
    fill the memory as well. These layers get hooks, so that they checkpoint too.

    Raises:
        TrainingError: the model doesn't support gradient checkpointing.
    """
    if not enabled:
        yield
        return
    model = family.model
    if not model.supports_gradient_checkpointing:
        raise TrainingError(
            f"{family.name()} has no gradient checkpointing.", "Set [train] gradient_checkpointing = false."
        )
    model.activation_checkpointing_enable({"use_reentrant": False})
    with ExitStack() as stack:
        stack.callback(model.activation_checkpointing_disable)
        for layer in model.modules():
            if isinstance(layer, GradientCheckpointingLayer) and not any(p.requires_grad for p in layer.parameters()):
                layer._gradient_checkpointing_func = partial(_checkpoint_in_eval_mode, layer)
                stack.enter_context(layer.register_forward_pre_hook(_ask_for_checkpointing, with_kwargs=True))
        yield


def _ask_for_checkpointing(layer: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """The layer's own flag alone, not its children's, decides if it checkpoints: set where a gradient passes."""
    inputs = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    layer.training = torch.is_grad_enabled() and any(value.requires_grad for value in inputs)


def _checkpoint_in_eval_mode(layer: torch.nn.Module, forward: Callable[..., Any], *args: Any) -> Any:
    layer.training = False  # before its forward, which may read the flag for dropout
    return checkpoint(forward, *args, use_reentrant=False)
