"""Which parameters are trained: one word a part, read by the names that the family gives its parts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cutline.core.errors import TrainingError
from cutline.core.suggest import did_you_mean
from cutline.core.text_table import text_table
from cutline.families.base import Family
from cutline.families.settings import LoraSettings
from cutline.families.weights import adapters
from cutline.families.weights.dtypes import dtype_name
from cutline.families.weights.quantize import numel


@dataclass(frozen=True)
class PartSummary:
    """One line of the table that is shown before training."""

    part: str
    policy: str
    #: without adapters
    parameters: int
    #: adapters included
    trainable: int
    dtype: str
    #: modules that have one
    adapters: int = 0


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


def open_parts(
    family: Family, policies: Mapping[str, str], lora: LoraSettings | None = None, *, for_captions: bool = False
) -> list[PartSummary]:
    """Freezes and opens parameters as ``[train.parts]`` says; trainable ones are kept in float32.

    Args:
        family: its parameters' ``requires_grad`` is set; parts called "lora" get adapters.
        policies: part → "frozen", "full", "last:N" or "lora"; "full" where a part isn't named.
        lora: the shape of adapters.
        for_captions: leave out what a training for captions has no use for.

    Returns:
        A line for each part.

    Raises:
        TrainingError: an unknown part, a part without layers for last:N, an adapter that hits nothing, quantised
            weights that are to be trained, or nothing left to train.
    """
    _known_parts(family, policies, "parts")
    adapted = [part for part in family.parts if policies.get(part) == "lora"]
    if adapted:
        lora = lora or LoraSettings()
        adapters.add(family, _targets(family, adapted, lora), lora)
    unused = re.compile(f"{family.unused}|{family.unused_by_captions}" if for_captions else family.unused)
    lines = []
    for part, parameters in partition(family).items():
        policy = policies.get(part, "full")
        chosen = _chosen(family, part, policy, parameters)
        for name, parameter in parameters:
            opened = name in chosen and not unused.match(name)
            if opened and not parameter.is_floating_point():
                raise TrainingError(
                    f'[train.parts] {part} = "{policy}", but {part} is quantised, so it can\'t be trained itself.',
                    'Use "lora" or "frozen", or leave [model] quantize out.',
                )
            parameter.requires_grad_(opened)
            if opened and parameter.dtype in (torch.float16, torch.bfloat16):
                parameter.data = parameter.data.float()  # small steps would vanish in 16 bits
            if opened:
                family.trained.add(name)
        lines.append(_summary(family, part, policy, parameters))
    if not any(line.trainable for line in lines):
        raise TrainingError(
            "Every part is frozen; there is nothing to train.", 'Use "full" for a part in [train.parts].'
        )
    return lines


def _known_parts(family: Family, named: Mapping[str, object], key: str) -> None:
    for part in named:
        if part not in family.parts:
            hint = did_you_mean(part, family.parts, f"Its parts: {', '.join(family.parts)}.")
            raise TrainingError(f"[train.{key}] {part}: {family.name()} has no such part.", hint)


def check_rates(family: Family, rates: Mapping[str, float]) -> None:
    """
    Raises:
        TrainingError: a learning rate for a part that there isn't.
    """
    _known_parts(family, rates, "part_lr")


def by_rate(family: Family, groups: Sequence[dict[str, Any]], rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """An optimiser's parameter groups, divided so that each part has its own learning rate.

    Args:
        family: whose parameters the groups hold.
        groups: each with "params" and "lr".
        rates: part → learning rate; the group's own where a part isn't named.
    """
    part_of = {id(parameter): family.part_of(name) for name, parameter in family.model.named_parameters()}
    divided = []
    for group in groups:
        for part in (None, *rates):
            chosen = [
                p for p in group["params"] if (found := part_of.get(id(p))) == part or (not part and found not in rates)
            ]
            if chosen:
                divided.append(group | {"params": chosen} | ({"lr": rates[part]} if part else {}))
    return divided


def _summary(family: Family, part: str, policy: str, parameters: list[tuple[str, nn.Parameter]]) -> PartSummary:
    own = [parameter for name, parameter in parameters if not adapters.is_adapter(name)]
    kinds = {dtype_name(p.dtype) if p.is_floating_point() else str(family.quantized) for p in own}
    return PartSummary(
        part=part,
        policy=policy,
        parameters=sum(map(numel, own)),
        trainable=sum(p.numel() for _, p in parameters if p.requires_grad),
        dtype=", ".join(sorted(kinds)),
        adapters=sum(family.part_of(f"{name}.weight") == part for name in adapters.layers(family)),
    )


def _targets(family: Family, parts: Sequence[str], lora: LoraSettings) -> list[str]:
    """Full names of the modules that get an adapter; in each part some, by each target some.

    Raises:
        TrainingError: a part in which no target hits, or a target that hits in no part.
    """
    found: list[str] = []
    unmatched = set() if lora.targets == "all-linear" else set(lora.targets)
    for part in parts:
        modules = adapters.adaptable(family, part)
        if lora.targets == "all-linear":
            hit = [name for name, module in modules.items() if not isinstance(module, nn.Embedding)]
        else:
            hits = {target: [n for n in modules if f".{n}".endswith(f".{target}")] for target in lora.targets}
            unmatched -= {target for target, names in hits.items() if names}
            hit = [name for name in modules if any(name in names for names in hits.values())]
        if not hit:
            endings = sorted({name.rpartition(".")[2] for name in modules})
            raise TrainingError(
                f'[train.parts] {part} = "lora", but [train.lora] targets = {lora.targets} hits nothing in {part}.',
                f"Its layers end in {', '.join(endings)}." if endings else 'It has no linear layers; say "full".',
            )
        found += hit
    if unmatched:
        known = sorted({name.rpartition(".")[2] for part in parts for name in adapters.adaptable(family, part)})
        wrong = min(unmatched)
        raise TrainingError(
            f"[train.lora] targets: {wrong} hits nothing in {', '.join(parts)}.",
            did_you_mean(wrong, known, f"Layers there end in {', '.join(known)}."),
        )
    return found


def _chosen(family: Family, part: str, policy: str, parameters: list[tuple[str, nn.Parameter]]) -> set[str]:
    """The names of a part's parameters that a policy opens."""
    if policy == "frozen":
        return set()
    if policy == "lora":
        return {name for name, _ in parameters if adapters.is_adapter(name)}
    parameters = [(name, parameter) for name, parameter in parameters if not adapters.is_adapter(name)]
    if policy == "full":
        return {name for name, _ in parameters}
    layers = {name: int(layer) for name, _ in parameters if (layer := _layer(family.parts[part], name)) is not None}
    if not layers:
        raise TrainingError(
            f'[train.parts] {part} = "{policy}": this part of {family.name()} has no numbered layers.',
            'Use "full" or "frozen".',
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


def part_rows(parts: Sequence[PartSummary]) -> list[tuple[str, str, str, str, str]]:
    """What is trained, as cells: part, policy, parameters, trainable, adapters; the last row is the sum."""
    rows = []
    for line in parts:
        count = f"{line.adapters:,}" if line.adapters else ""
        rows.append((line.part, line.policy, f"{line.parameters:,}", f"{line.trainable:,}", count))
    total, trainable = sum(line.parameters for line in parts), sum(line.trainable for line in parts)
    rows.append(("all", f"{trainable / total:.2%}", f"{total:,}", f"{trainable:,}", ""))
    return rows


def parts_table(parts: Sequence[PartSummary]) -> str:
    """What is trained, as text, with the dtype of each part."""
    dtypes = [*(line.dtype for line in parts), ""]
    rows = [(*row[:2], dtype, *row[2:]) for row, dtype in zip(part_rows(parts), dtypes, strict=True)]
    return text_table(("part", "policy", "dtype", "parameters", "trainable", "adapters"), rows, left=3)
