"""Models without weights: a family's parts can be counted before anything is downloaded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from transformers import AutoModelForImageTextToText

from cutline.core.errors import CheckpointError

if TYPE_CHECKING:
    from cutline.families.base import Family


class Outlined:
    """What every family gets from here."""

    @classmethod
    def outline(cls, config: Any) -> Family:
        """The model of a Hugging Face configuration without its weights (device "meta") and without processors: for
        counting parameters, and for nothing else."""
        with torch.device("meta"):
            return cls.bare(AutoModelForImageTextToText.from_config(config))

    @classmethod
    def bare(cls, model: nn.Module) -> Family:
        """A family round a model, without processors."""
        build: Any = cls
        if "processor" in inspect.signature(cls.__init__).parameters:
            made: Any = build(model, SimpleNamespace(image_processor=None, tokenizer=None))
        else:
            made = build(model, None, None)
        return cast("Family", made)

    @classmethod
    def outline_new(cls, new: Mapping[str, Any], config_of: Callable[[str], Any]) -> Family:
        """``outline`` of what ``[model.new]`` describes, for families whose size doesn't hang on the captions.

        Args:
            new: the section.
            config_of: a checkpoint's name → its configuration.
        """
        raise CheckpointError(
            f"The size of a new {cls.__module__.rpartition('.')[2]} is known when its captions are.",
            "See the table that training begins with.",
        )
