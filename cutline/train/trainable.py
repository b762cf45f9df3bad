"""Which parameters are trained: one word a part, read by the names that the family gives its parts."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from cutline.errors import TrainingError
from cutline.families.base import Family


@dataclass(frozen=True)
class PartSummary:
    """One line of the table that is shown before training."""

    part: str
    policy: str
    parameters: int
    trainable: int
    dtype: str


def partition(family: Family) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Every parameter in exactly one part.

    Raises:
        TrainingError: a parameter that no part's pattern matches (a fault of the family's file).
    """
    found: dict[str, list[tuple[str, nn.Parameter]]] = {part: [] for part in family.parts}
    for name, parameter in family.model.named_parameters():
        part = family.part_of(name)
        if part is None:
            raise TrainingError(
                f"The parameter {name} belongs to no part of {family.name()}.", "Mend `parts` in the family's file."
            )
        found[part].append((name, parameter))
    return found


def open_parts(family: Family, policies: Mapping[str, str]) -> list[PartSummary]:
    """Freezes and opens parameters as ``[train.parts]`` says; trainable ones are kept in float32.

    Args:
        family: its parameters' ``requires_grad`` is set.
        policies: part → "frozen", "full" or "last:N"; "full" where a part isn't named.

    Returns:
        A line for each part.

    Raises:
        TrainingError: an unknown part, a part without layers for last:N, or nothing left to train.
    """
    for part in policies:
        if part not in family.parts:
            near = difflib.get_close_matches(part, family.parts, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Its parts: {', '.join(family.parts)}."
            raise TrainingError(f"[train.parts] {part}: {family.name()} has no such part.", hint)
    unused = re.compile(family.unused)
    lines = []
    for part, parameters in partition(family).items():
        policy = policies.get(part, "full")
        chosen = _chosen(family, part, policy, parameters)
        for name, parameter in parameters:
            parameter.requires_grad_(name in chosen and not unused.match(name))
            if parameter.requires_grad and parameter.dtype in (torch.float16, torch.bfloat16):
                parameter.data = parameter.data.float()  # small steps would vanish in 16 bits
        lines.append(
            PartSummary(
                part=part,
                policy=policy,
                parameters=sum(p.numel() for _, p in parameters),
                trainable=sum(p.numel() for _, p in parameters if p.requires_grad),
                dtype=", ".join(sorted({str(p.dtype).removeprefix("torch.") for _, p in parameters})),
            )
        )
    if not any(line.trainable for line in lines):
        raise TrainingError(
            "Every part is frozen; there is nothing to train.", 'Say "full" for a part in [train.parts].'
        )
    return lines


def _chosen(family: Family, part: str, policy: str, parameters: list[tuple[str, nn.Parameter]]) -> set[str]:
    """The names of a part's parameters that a policy opens."""
    if policy == "frozen":
        return set()
    if policy == "full":
        return {name for name, _ in parameters}
    layers = {name: int(layer) for name, _ in parameters if (layer := _layer(family.parts[part], name)) is not None}
    if not layers:
        raise TrainingError(
            f'[train.parts] {part} = "{policy}": this part of {family.name()} has no numbered layers.',
            'Say "full" or "frozen".',
        )
    count = int(policy.removeprefix("last:"))
    present = max(layers.values()) + 1
    if count > present:
        raise TrainingError(
            f'[train.parts] {part} = "{policy}", but {part} has {present} layers.', f'Say at most "last:{present}".'
        )
    return {name for name, layer in layers.items() if layer >= present - count}


def _layer(pattern: str, name: str) -> str | None:
    found = re.match(pattern, name)
    return found.groupdict().get("layer") if found else None
