"""Any Hugging Face vision model, or the VGG of `vgg.py`, as a tower: an image in, cells with a vector each out."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
    VisionEncoderDecoderModel,
)

from cutline.core import hub
from cutline.core.errors import CheckpointError
from cutline.families.models import vgg  # noqa: F401  makes "cutline_vgg" known to AutoModel

#: Model type → modules that only pooled outputs read. Left in, they would be trained in name only.
_ONLY_FOR_POOLING = {
    "clip_vision_model": ("post_layernorm",),
    "siglip_vision_model": ("head",),
    "convnext": ("layernorm",),
    "convnextv2": ("layernorm",),
}


def build_tower(config: PreTrainedConfig) -> PreTrainedModel:
    """The vision model of `config` with random weights, without what only a pooled output reads."""
    accepts = inspect.signature(AutoModel._model_mapping[type(config)].__init__).parameters
    tower = AutoModel.from_config(config, **({"add_pooling_layer": False} if "add_pooling_layer" in accepts else {}))
    for name in _ONLY_FOR_POOLING.get(config.model_type, ()):
        if hasattr(tower, name):
            setattr(tower, name, nn.Identity())
    return tower


def open_tower(checkpoint: str) -> tuple[PreTrainedModel, Any]:
    """A pretrained vision model and its image processor.

    Args:
        checkpoint: folder or hub name; of a model of images and text (CLIP, SigLIP) the vision half is taken, of a
            captioner such as ViT-GPT2 its encoder.

    Raises:
        CheckpointError: it can't be opened, or lacks weights of the tower.
    """
    try:
        source = hub.resolve(checkpoint)
        config = AutoConfig.from_pretrained(source)
        if config.model_type == "vision-encoder-decoder":
            whole = VisionEncoderDecoderModel
            pretrained, found = whole.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
            pretrained, config = pretrained.encoder, config.encoder
            missing_keys = {name.removeprefix("encoder.") for name in found["missing_keys"]}
        else:
            config = getattr(config, "vision_config", None) or config
            pretrained, found = AutoModel.from_pretrained(
                source, config=config, dtype=torch.float32, output_loading_info=True
            )
            missing_keys = set(found["missing_keys"])
        image_processor = AutoImageProcessor.from_pretrained(source, backend="pil")
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"The vision checkpoint {checkpoint!r} could not be opened: {str(error).splitlines()[0]}",
            "Give the folder of a vision checkpoint, or its name on the hub.",
        ) from error
    tower = build_tower(config)
    needed = set(tower.state_dict())
    if missing := sorted(needed & missing_keys):
        raise CheckpointError(
            f"The vision checkpoint {checkpoint!r} lacks {len(missing):,} weights: {', '.join(missing[:3])} ….",
            "Download the checkpoint again.",
        )
    tower.load_state_dict({name: tensor for name, tensor in pretrained.state_dict().items() if name in needed})
    return tower, image_processor


def keep_statistics(tower: nn.Module) -> None:
    """Batch norms keep their running statistics, in training mode too.

    Batches of captioned images are small and one-sided, a frozen tower must say what its cached features say, and one
    row must not change another.
    """
    for module in tower.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def as_cells(features: torch.Tensor) -> torch.Tensor:
    """A map [N, C, H, W] -> cells [N, T, C], row by row of the grid; tokens [N, T, C] are cells already."""
    return features.flatten(2).transpose(1, 2) if features.dim() == 4 else features


def channels_of(tower: PreTrainedModel) -> int:
    """C, asked of the tower itself: every architecture's config has another name for it."""
    side = getattr(tower.config, "image_size", 64)
    height, width = (side, side) if isinstance(side, int) else side
    return cells_of(tower, height, width)[1]


@torch.no_grad()
def cells_of(tower: PreTrainedModel, height: int, width: int) -> tuple[int, int]:
    """T and C for an image of height × width px, found without computing anything (on the meta device)."""
    weights = {name: tensor.to("meta") for name, tensor in (*tower.named_parameters(), *tower.named_buffers())}
    channels = getattr(tower.config, "num_channels", 3)
    blank = torch.empty(1, channels, height, width, dtype=tower.dtype, device="meta")
    cells, width = as_cells(functional_call(tower, weights, (blank,)).last_hidden_state).shape[1:]
    return cells, width
