"""A vision tower divided where its training begins, so that what stays frozen runs once for each image.

Training the last layers of a tower would otherwise run all the others again at each step.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel


class SplitTower(NamedTuple):
    """Two towers that share the parameters of the one they were made of: ``upper(lower(pixels)) = tower(pixels)``.

    Attributes:
        lower: all that comes before the first trained layer; its last_hidden_state is what ``upper`` begins with.
        upper: the rest.
        frozen: names of the modules that ``lower`` runs.
    """

    lower: Any
    upper: Any
    frozen: list[str]


class PassThrough(nn.Module):
    """Stands in the place of a layer that the other half runs."""

    def forward(self, hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return hidden


def split_tower(tower: PreTrainedModel, layers: Collection[str], height: int, width: int) -> SplitTower | None:
    """Divides a tower before its first layer with a trained parameter.

    That works where each layer takes what the one before it gives, as in chains of convolutions and in transformers.
    Whether it does is tried with an image of noise instead of believed.

    Args:
        tower: with the ``requires_grad`` that it will be trained with.
        layers: names of its layers; whatever stands outside them is a layer of its own.
        height, width: of images, in px.

    Returns:
        None where nothing is frozen before the first trained layer, or where the tower is no such chain.
    """
    was_training = tower.training
    tower.eval()  # noise must not move a BatchNorm's statistics
    try:
        with torch.no_grad():
            return _split(tower, layers, _noise(tower, height, width))
    finally:
        tower.train(was_training)


def _split(tower: PreTrainedModel, layers: Collection[str], noise: torch.Tensor) -> SplitTower | None:
    order, whole = _run(tower, set(_units(tower, layers)), noise)
    frozen: list[str] = []
    for name in order:
        if any(parameter.requires_grad for parameter in tower.get_submodule(name).parameters()):
            break
        frozen.append(name)
    rest = order[len(frozen) :]
    if not frozen or not rest or len(set(order)) < len(order):
        return None
    split = SplitTower(_without(tower, rest), _without(tower, frozen), frozen)
    try:
        found = split.upper(split.lower(noise).last_hidden_state).last_hidden_state
    except (TypeError, ValueError, RuntimeError, AttributeError):  # its layers tell each other more than one tensor
        return None
    return split if found.shape == whole.shape and torch.allclose(found, whole, rtol=1e-4, atol=1e-5) else None


def _units(module: nn.Module, layers: Collection[str], prefix: str = "") -> Iterator[str]:
    for name, child in module.named_children():
        path = prefix + name
        if any(layer.startswith(path + ".") for layer in layers):
            yield from _units(child, layers, path + ".")
        else:
            yield path


def _run(tower: Any, units: set[str], noise: torch.Tensor) -> tuple[list[str], torch.Tensor]:
    """The units in the order in which they run (those that don't run are left out), and what the tower says."""
    seen: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: seen.append(name))
        for name, module in tower.named_modules()
        if name in units
    ]
    try:
        return seen, tower(noise).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()


def _noise(tower: PreTrainedModel, height: int, width: int) -> torch.Tensor:
    channels = getattr(tower.config, "num_channels", 3)
    noise = torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(0))
    return noise.to(tower.device, tower.dtype)


def _without(module: Any, names: Collection[str], prefix: str = "") -> Any:
    """A copy of a module that shares its parameters, with others in the place of the named modules."""
    clone = copy.copy(module)
    clone._modules = dict(module._modules)
    for name, child in module.named_children():
        path = prefix + name
        if path in names:
            clone._modules[name] = PassThrough()
        elif any(other.startswith(path + ".") for other in names):
            clone._modules[name] = _without(child, names, path + ".")
    return clone
