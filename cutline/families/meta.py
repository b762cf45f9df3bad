"""Models without weights, on PyTorch's "meta" device: parts can be counted before anything is downloaded."""

from __future__ import annotations

import copy
import inspect
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from cutline.families.base import Family


def on_meta(family: type[Family], config: Any) -> Family:
    """The model of a Hugging Face configuration without weights and without processors, for counting parameters.

    Args:
        family: the family that opens such checkpoints.
        config: a configuration, of a checkpoint or from ``Family.config_of_new``.
    """
    kind: Any = family.class_of(config)
    with torch.device("meta"):
        model = kind.build(config)
    if "processor" in inspect.signature(kind.__init__).parameters:
        opened: Family = kind(model, SimpleNamespace(image_processor=None, tokenizer=None))
    else:
        opened = kind(model, None, None)
    return opened


def without_weights(family: Family) -> Family:
    """A copy with the same structure, configuration and processors, whose parameters and buffers hold no data.

    It makes batches as the family does, and takes nearly no memory.
    """
    empty: dict[int, Any] = {}
    for parameter in family.parameters():
        bare = torch.empty_like(parameter.data, device="meta")
        empty[id(parameter)] = nn.Parameter(bare, requires_grad=parameter.requires_grad)
    for buffer in family.buffers():
        empty[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(family, empty)
