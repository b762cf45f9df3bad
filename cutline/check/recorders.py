"""Records what a model computes, without knowing which model it is."""

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


class CrossEntropyRecorder(TorchFunctionMode):
    """Records the logits and targets of every cross-entropy computed within it.

    Attributes:
        logits: [M, V], one row for each target, in the order in which they were scored, as float32.
        targets: M token ids.
    """

    def __init__(self) -> None:
        super().__init__()
        self._logits: list[Tensor] = []
        self.targets: list[int] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.cross_entropy:
            self._record(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _record(self, input: Tensor, target: Tensor, *rest: Any, ignore_index: int = IGNORED, **options: Any) -> None:
        if target.is_floating_point():
            return  # a cross-entropy between distributions, not over tokens
        if input.dim() > 2:  # [R, V, L], PyTorch's order
            input = input.movedim(1, -1).reshape(-1, input.shape[1])
        target = target.reshape(-1)
        scored = (target != ignore_index) & (target != IGNORED)
        self._logits.append(input.detach()[scored].float())
        self.targets += target[scored].tolist()

    @property
    def logits(self) -> Tensor:
        return torch.cat(self._logits) if self._logits else torch.zeros(0, 0)


def token_embeddings(family: Family) -> list[nn.Embedding]:
    """The modules that embed token ids. Tables of positions are left out: they are smaller than the vocabulary."""
    return [
        module
        for module in family.model.modules()
        if isinstance(module, nn.Embedding) and module.num_embeddings >= 0.9 * len(family.tokenizer)
    ]


@contextmanager
def record_token_ids(family: Family) -> Iterator[list[Tensor]]:
    """Records the token ids that the text part embeds: a tensor [R, L] for each call."""
    recorded: list[Tensor] = []

    def record(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor):
            ids = inputs[0].detach().cpu()
            recorded.append(ids if ids.dim() == 2 else ids[None])

    hooks = [module.register_forward_pre_hook(record) for module in token_embeddings(family)]
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


def text_layers(family: Family) -> list[nn.Module]:
    """The numbered layers of the text part, in order. A recurrent decoder has none."""
    names: dict[int, str] = {}
    for name, _ in family.model.named_parameters():
        if family.part_of(name) == "text":
            match = re.match(family.parts["text"], name)
            if match and match.groupdict().get("layer") is not None:
                names.setdefault(int(match["layer"]), name[: match.end("layer")])
    return [family.model.get_submodule(names[layer]) for layer in sorted(names)]


@contextmanager
def perturbed(first: nn.Module, last: nn.Module, position: int | None) -> Iterator[list[Tensor]]:
    """Perturbs the input of the first layer at one position and records the outputs of the last layer.

    Args:
        first, last: layers of one text model.
        position: a position in the text; None perturbs nothing.
    """
    outputs: list[Tensor] = []

    def perturb(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        hidden = args[0] if args else kwargs["hidden_states"]
        if position is not None:
            hidden = hidden.clone()
            # a ramp, not a constant: layer norms remove constants
            ramp = torch.linspace(-2, 2, hidden.shape[-1], device=hidden.device).to(hidden)
            hidden[:, position] += hidden.std() * ramp
        return ((hidden, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": hidden})

    def record(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        outputs.append((output[0] if isinstance(output, tuple) else output).detach().float())

    hooks = [first.register_forward_pre_hook(perturb, with_kwargs=True), last.register_forward_hook(record)]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
