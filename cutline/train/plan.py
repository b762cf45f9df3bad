"""What a recipe would train, counted without weights: parameters of each part, in all and trained.

The model is built on PyTorch's "meta" device from its configuration alone, by the classes and by the rules of the real
training, so that the numbers are those of the table that training begins with. Configurations of the checkpoints that
Cutline's recipes name are built in (``families/configs``), so nothing is downloaded for those.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from cutline import families
from cutline.core import hub
from cutline.core.errors import CheckpointError
from cutline.families.base import Family
from cutline.families.meta import on_meta
from cutline.families.open import find
from cutline.families.settings import LoraSettings, ModelSettings
from cutline.families.unsupported import explain_unsupported
from cutline.train.settings import TrainSettings
from cutline.train.trainable import PartSummary, open_parts, partition

_CONFIGS = Path(__file__).parents[1] / "families" / "configs"


@dataclass(frozen=True)
class Plan:
    """One stage of training.

    Attributes:
        stage: "align", "train", or "none" where nothing is trained.
        parts: a line for each part of the model.
    """

    stage: str
    parts: tuple[PartSummary, ...]

    @property
    def parameters(self) -> int:
        """Of all parts, without adapters."""
        return sum(line.parameters for line in self.parts)

    @property
    def trainable(self) -> int:
        """Of all parts, adapters included."""
        return sum(line.trainable for line in self.parts)

    def to_json(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "parameters": self.parameters,
            "trainable": self.trainable,
            "parts": [{key: value for key, value in asdict(line).items() if key != "dtype"} for line in self.parts],
        }


def plan(model: ModelSettings, train: TrainSettings | None) -> list[Plan]:
    """Counts what each stage of a recipe would train.

    Args:
        model: the ``[model]`` section.
        train: the ``[train]`` section; None: nothing is trained.

    Returns:
        The stages in order.

    Raises:
        CheckpointError: the model's configuration is neither built in nor to be had, or depends on the captions.
        TrainingError: a part that there isn't, or an adapter that hits nothing.
    """
    if train is None:
        return [Plan("none", _counted(outline(model)))]
    stages = []
    if train.align is not None:
        frozen = dict.fromkeys(outline(model).parts, "frozen")
        stages.append(Plan("align", _opened(outline(model), frozen | train.align.parts, None)))
    return [*stages, Plan("train", _opened(outline(model), train.parts, train.lora))]


def outline(model: ModelSettings) -> Family:
    """The model of a ``[model]`` section without weights."""
    if model.new is not None:
        kind = find(str(model.family))
        return on_meta(kind, kind.config_of_new(model.new, config_of))
    config = config_of(str(model.checkpoint))
    return on_meta(find(model.family or config.model_type), config)


def config_of(checkpoint: str) -> Any:
    """The configuration of a checkpoint: built in, of a folder, or from the hub."""
    if checkpoint in _built_in():
        entries = dict(_built_in()[checkpoint])
    else:
        try:
            entries, _ = PretrainedConfig.get_config_dict(hub.resolve(checkpoint))
        except (OSError, ValueError) as error:
            known = ", ".join(sorted(_built_in()))
            raise CheckpointError(
                f"The configuration of {checkpoint} is neither built in nor to be had from the hub.",
                f"Check the name and the connection. Built in: {known}.",
            ) from error
        reason = explain_unsupported(entries, families.names())
        if reason and entries.get("auto_map"):
            raise CheckpointError(f"{checkpoint} {reason[0]}", reason[1])
        if not entries.get("model_type"):
            raise CheckpointError(
                f"The config.json of {checkpoint} has no model_type.", "Download the checkpoint again."
            )
    return AutoConfig.for_model(entries.pop("model_type"), **entries)


@functools.cache
def _built_in() -> Mapping[str, Mapping[str, Any]]:
    """Checkpoint → its configuration."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted(_CONFIGS.glob("*.json")):
        kept = json.loads(path.read_text(encoding="utf-8"))
        found |= dict.fromkeys(kept["names"], kept["config"])
    return found


def _opened(family: Family, parts: Mapping[str, str], lora: LoraSettings | None) -> tuple[PartSummary, ...]:
    return tuple(open_parts(family, parts, lora))


def _counted(family: Family) -> tuple[PartSummary, ...]:
    return tuple(
        PartSummary(part, "frozen", sum(p.numel() for _, p in parameters), 0, "")
        for part, parameters in partition(family).items()
    )
