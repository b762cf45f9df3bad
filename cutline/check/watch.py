"""Looking into a model while it computes, without knowing which model it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from cutline.families.base import Family
from cutline.families.common.loss import IGNORED


class CrossEntropies(TorchFunctionMode):
    """Within it, every cross-entropy's logits and targets are kept, whoever computes it.

    Attributes:
        logits: [M, V] of the targets, in the order in which they were scored, as float32.
        targets: M token ids.
    """

    def __init__(self) -> None:
        super().__init__()
        self._logits: list[Tensor] = []
        self.targets: list[int] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.cross_entropy:
            self._keep(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _keep(self, input: Tensor, target: Tensor, *rest: Any, ignore_index: int = IGNORED, **how: Any) -> None:
        if target.is_floating_point():
            return  # between distributions, not over tokens
        if input.dim() > 2:  # [R, V, L], as PyTorch wants it
            input = input.movedim(1, -1).reshape(-1, input.shape[1])
        target = target.reshape(-1)
        scored = (target != ignore_index) & (target != IGNORED)
        self._logits.append(input.detach()[scored].float())
        self.targets += target[scored].tolist()

    @property
    def logits(self) -> Tensor:
        return torch.cat(self._logits) if self._logits else torch.zeros(0, 0)


def token_embeddings(family: Family) -> list[nn.Embedding]:
    """The modules that token ids go into; tables of positions are smaller than the vocabulary."""
    return [
        module
        for module in family.model.modules()
        if isinstance(module, nn.Embedding) and module.num_embeddings >= 0.9 * len(family.tokenizer)
    ]


@contextmanager
def ids_read(family: Family) -> Iterator[list[Tensor]]:
    """Within it, the token ids [R, L] that the text part reads are kept, a tensor for each call."""
    found: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor):
            ids = inputs[0].detach().cpu()
            found.append(ids if ids.dim() == 2 else ids[None])

    hooks = [module.register_forward_pre_hook(keep) for module in token_embeddings(family)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def text_layers(family: Family) -> list[nn.Module]:
    """The text part's numbered layers, in order; none for models that have none (a recurrent decoder)."""
    places: dict[int, str] = {}
    for name, _ in family.model.named_parameters():
        if family.part_of(name) == "text":
            match = re.match(family.parts["text"], name)
            if match and match.groupdict().get("layer") is not None:
                places.setdefault(int(match["layer"]), name[: match.end("layer")])
    return [family.model.get_submodule(places[layer]) for layer in sorted(places)]


@contextmanager
def nudged(first: nn.Module, last: nn.Module, place: int | None) -> Iterator[list[Tensor]]:
    """Within it, what goes into the first layer is changed at one position, and what the last one says is kept.

    Args:
        first, last: layers of one text model.
        place: position in the text; None changes nothing.
    """
    said: list[Tensor] = []

    def nudge(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        hidden = args[0] if args else kwargs["hidden_states"]
        if place is not None:
            hidden = hidden.clone()
            # not a constant: layer norms take constants out
            hidden[:, place] += hidden.std() * torch.linspace(-2, 2, hidden.shape[-1], device=hidden.device).to(hidden)
        return ((hidden, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": hidden})

    def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        said.append((output[0] if isinstance(output, tuple) else output).detach().float())

    hooks = [first.register_forward_pre_hook(nudge, with_kwargs=True), last.register_forward_hook(keep)]
    try:
        yield said
    finally:
        for hook in hooks:
            hook.remove()
