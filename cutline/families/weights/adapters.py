"""LoRA adapters, by peft: added to a model, saved, loaded and merged.

Source: Hu et al. 2021, arXiv:2106.09685; rank-stabilised scaling after Kalajdzievski 2023, arXiv:2312.03732;
weight-decomposed (DoRA) after Liu et al. 2024, arXiv:2402.09353.

A checkpoint with adapters ("light") contains only trained weights and names the checkpoint they belong to:

    cutline.json                                        "base": the checkpoint to open first
    adapter_config.json, adapter_model.safetensors      in peft's format, which its own tools open too
    rest.safetensors                                    trained weights that aren't adapters, and buffers
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from cutline.core.errors import CheckpointError, TrainingError
from cutline.families.parts import HasParts
from cutline.families.settings import LoraSettings

#: peft's name of the only adapter.
NAME = "default"
WEIGHTS, REST = "adapter_model.safetensors", "rest.safetensors"
#: Prefix of every name in peft's files: a PeftModel contains a tuner, which contains the model.
_PREFIX = "base_model.model."


def layers(family: HasParts) -> dict[str, Any]:
    """The modules that have adapters, by name in ``family.model``."""
    if not hasattr(family.model, "peft_config"):
        return {}
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in family.model.named_modules() if isinstance(module, LoraLayer)}


def is_adapter(parameter: str) -> bool:
    """Whether a parameter's name in ``family.model`` is one of an adapter's."""
    return ".lora_" in parameter


def adaptable(family: HasParts, part: str) -> dict[str, nn.Module]:
    """A part's matrices that can have an adapter: linear layers and embeddings that the model calls as modules."""
    adaptable = {}
    inside: set[str] = set()  # attention that reads its projections' weights without calling them
    for name, module in family.model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            inside.add(f"{name}.")
        bare = module.get_base_layer() if hasattr(module, "get_base_layer") else module
        weight = f"{name}.weight"
        if (
            isinstance(bare, nn.Linear | Conv1D | nn.Embedding)
            and not name.endswith(".base_layer")
            and not is_adapter(name)
            and not any(name.startswith(above) for above in inside)
            and family.part_of(weight) == part
            and not re.match(family.unused, weight)
        ):
            adaptable[name] = module
    return adaptable


def add(family: HasParts, names: Collection[str], lora: LoraSettings) -> None:
    """Adds new adapters, which change no output yet, to modules.

    Args:
        family: its model is changed in place.
        names: full names of modules in ``family.model``.
        lora: the adapters' settings.

    Raises:
        TrainingError: a module shares its weight with another one, or other modules have adapters already.
    """
    present = layers(family)
    if present.keys() == set(names):
        return
    if present:
        raise TrainingError(
            "Other modules of the model already have adapters.", "Set the same parts to lora in every stage."
        )
    _refuse_shared(family, names)
    from peft import LoraConfig

    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        # full names: peft takes a list for endings of names, which occur in other parts too
        target_modules="|".join(map(re.escape, sorted(names))),
    )
    _inject(family, config)
    hit = layers(family).keys()
    assert hit == set(names), sorted(hit ^ set(names))[:3]


def _inject(family: HasParts, config: Any) -> None:
    from peft import inject_adapter_in_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GPT-2's transposed matrices, which peft sees and handles
        inject_adapter_in_model(config, family.model, NAME)


def _refuse_shared(family: HasParts, names: Collection[str]) -> None:
    holders: dict[int, list[str]] = {}
    for name, module in family.model.named_modules():
        for _, parameter in module.named_parameters(recurse=False):
            holders.setdefault(id(parameter), []).append(name)
    for shared in holders.values():
        adapted = set(shared) & set(names)
        if len(shared) > 1 and adapted:
            raise TrainingError(
                f"{min(adapted)} shares its weight with {min(set(shared) - {min(adapted)})}; an adapter on one of them "
                "can't be merged.",
                "Remove it from [train.lora] targets.",
            )


# ---- files


def save(family: HasParts, folder: Path) -> None:
    """Writes adapters, other trained weights and buffers; all else is in the family's ``origin``."""
    from peft.utils import get_peft_model_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    if layers(family):
        state = get_peft_model_state_dict(family.model, adapter_name=NAME, save_embedding_layers=False)
        save_file({_PREFIX + name: _plain(tensor) for name, tensor in state.items()}, folder / WEIGHTS)
        config = family.model.peft_config[NAME]
        config.base_model_name_or_path, config.inference_mode = family.origin, True
        config.save_pretrained(folder)
    save_file({name: _plain(tensor) for name, tensor in _rest(family)}, folder / REST)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()


def _rest(family: HasParts) -> Iterator[tuple[str, Tensor]]:
    """Trained weights that aren't adapters; and buffers, which training changes (BatchNorm's)."""
    yield from (
        (name, parameter)
        for name, parameter in family.model.named_parameters()
        if name in family.trained and not is_adapter(name)
    )
    saved = family.model.state_dict()
    quantised = (".absmax", ".quant_map", ".nested_", ".quant_state", "SCB", "weight_format")
    yield from (
        (name, buffer)
        for name, buffer in family.model.named_buffers()
        if name in saved and not any(sign in name for sign in quantised)
    )


def load(family: HasParts, folder: Path) -> None:
    """Loads what ``save`` wrote into a family whose base was opened.

    Raises:
        CheckpointError: files are missing, or don't fit the base.
    """
    try:
        if (folder / "adapter_config.json").is_file():
            from peft import LoraConfig, set_peft_model_state_dict

            _inject(family, LoraConfig.from_pretrained(str(folder)))
            saved = {name.removeprefix(_PREFIX): tensor for name, tensor in load_file(folder / WEIGHTS).items()}
            result = set_peft_model_state_dict(family.model, saved, adapter_name=NAME)
            lost = [name for name in result.missing_keys if is_adapter(name)] + list(result.unexpected_keys)
            if lost:
                raise KeyError(lost[0])
        wanted = family.model.state_dict()
        with torch.no_grad():
            for name, tensor in load_file(folder / REST).items():
                wanted[name].copy_(tensor)
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"The adapters in {folder} don't fit {family.origin}: {' '.join(str(error).split())[:200]}",
            "Use the base checkpoint that they were trained from.",
        ) from error


def merge(family: HasParts) -> None:
    """Adds each adapter to its matrix and removes it; the model computes the same as before.

    Raises:
        CheckpointError: the matrices are quantised and would be rounded again.
    """
    if family.quantized:
        raise CheckpointError(
            "Adapters can't be merged into quantised matrices: those would be rounded again.",
            "Open the checkpoint with quantize = none first.",
        )
    for name, layer in layers(family).items():
        layer.merge(safe_merge=True)
        above, _, last = name.rpartition(".")
        setattr(family.model.get_submodule(above), last, layer.get_base_layer())
    if hasattr(family.model, "peft_config"):
        del family.model.peft_config
