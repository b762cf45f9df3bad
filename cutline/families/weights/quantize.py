"""Opening a checkpoint with its language model in 4 or 8 bits, by bitsandbytes.

Source: Dettmers et al. 2023, arXiv:2305.14314 (NF4, double quantisation); Dettmers et al. 2022, arXiv:2208.07339 (8
bits). Only matrices of the part ``text`` are quantised: quantised vision towers, bridges and
output layers give worse captions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from transformers import BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from cutline.core.errors import CheckpointError
from cutline.families.parts import HasParts


@dataclass(frozen=True)
class Quantization:
    """How matrices are quantised.

    Attributes:
        kind: "nf4" (4.5 bits a weight, 4.1 with ``double``) or "int8".
        double: whether NF4's scales are quantised too.
        compute: dtype in which NF4 matrices are multiplied; int8 multiplies integers, and outliers in 16 bits.
        device: device on which they are quantised and stay.
    """

    kind: Literal["nf4", "int8"]
    double: bool
    compute: torch.dtype
    device: torch.device


def check(quantization: Quantization) -> None:
    """Raises a CheckpointError if bitsandbytes is missing or can't quantise on that device."""
    try:
        import bitsandbytes
    except ImportError as error:
        raise CheckpointError(
            f'[model] quantize = "{quantization.kind}" needs bitsandbytes.',
            'Install it: pip install "cutline[bnb]"; or leave quantize out.',
        ) from error
    kind = quantization.device.type
    known = {getattr(device, "type", device) for device in bitsandbytes.supported_torch_devices}
    if kind not in known:
        raise CheckpointError(
            f"bitsandbytes {bitsandbytes.__version__} can't quantise on {kind}.",
            f"Use one of {', '.join(sorted(known & {'cuda', 'cpu', 'xpu', 'hpu'}))}, or leave [model] quantize out.",
        )


def options(family: type[HasParts], kind: Any, checkpoint: str, wanted: Quantization, config: Any) -> dict[str, Any]:
    """The arguments of ``from_pretrained`` that quantise the text part of a checkpoint.

    Args:
        family: the family that opens it.
        kind: the class of the model.
        checkpoint: folder or hub name.
        wanted: how to quantise.
        config: the checkpoint's configuration; None: it is read.

    Raises:
        CheckpointError: bitsandbytes is missing or can't do it here, or the text part has nothing to quantise.
    """
    check(wanted)
    quantised, others = _matrices(family, kind, config or kind.config_class.from_pretrained(checkpoint))
    if not quantised:
        raise CheckpointError(
            f"The text part of {family.name()} has no linear layers to quantise.", "Leave [model] quantize out."
        )
    common: dict[str, Any] = {"llm_int8_skip_modules": others}
    if wanted.kind == "nf4":
        bits = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=wanted.double,
            bnb_4bit_compute_dtype=wanted.compute,
            **common,
        )
    else:
        bits = BitsAndBytesConfig(load_in_8bit=True, **common)
    return {"quantization_config": bits, "device_map": {"": str(wanted.device)}}


def _matrices(family: type[HasParts], kind: Any, config: Any) -> tuple[list[str], list[str]]:
    """Names of the linear layers of the text part, and of all others; from the configuration, without weights."""
    with torch.device("meta"):
        model = kind(config)
    bare: Any = family.__new__(family)  # a family's parts may depend on the model's architecture, and on nothing else
    nn.Module.__init__(bare)
    bare.model, bare.config = model, model.config
    quantised: list[str] = []
    others: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            (quantised if bare.part_of(f"{name}.weight") == "text" else others).append(name)
    return quantised, others


def finish(model: Any) -> str | None:
    """Prepares an opened model; returns its kind of quantisation, which may be the checkpoint's own."""
    kind = None
    for module in model.modules():
        name = type(module).__name__
        if name == "Linear4bit":
            kind = "nf4"
            # the fast path for processors with AVX512-BF16 fails for sizes that aren't multiples of 64 × 32
            module.support_avx512bf16_for_cpu = False
        elif name == "Linear8bitLt":
            kind = "int8"
    return kind


def numel(parameter: nn.Parameter) -> int:
    """Number of weights; a byte of a 4-bit matrix contains two."""
    state = getattr(parameter, "quant_state", None)
    return int(torch.Size(state.shape).numel()) if state is not None else parameter.numel()
