"""VGG convolutional towers (Simonyan & Zisserman 2015) as Hugging Face models.

Hugging Face has no VGG, and torchvision is not a dependency, so the four standard layouts are here. Show, Attend and
Tell reads the 14 x 14 x 512 map in front of the last max-pooling of VGG19; `final_pool=False`, the default, ends there.
The modules sit in one `features` list whose numbering is the usual one, so convolution weights published under
`features.<n>.weight` load by name.
"""

from __future__ import annotations

from pathlib import Path

import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput

from cutline.core import hub
from cutline.core.errors import CheckpointError

# Convolutions in each of the five blocks; a 2 x 2 max-pooling ends each block.
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VggConfig(PreTrainedConfig):
    """depth: 11, 13, 16 or 19 weight layers in the original network, whose fully connected ones are left out here.

    widths: channels of the five blocks. batch_norm: the "_bn" variants. final_pool: keep the last max-pooling (stride
    32 instead of 16).
    """

    model_type = "cutline_vgg"

    depth: int = 16
    widths: tuple[int, ...] | list[int] = (64, 128, 256, 512, 512)
    num_channels: int = 3
    batch_norm: bool = False
    final_pool: bool = False

    def __post_init__(self, **kwargs: object) -> None:
        self.widths = list(self.widths)  # what JSON gives back, so that a reloaded config compares equal
        if self.depth not in CONVOLUTIONS:
            raise CheckpointError(f"There is no VGG{self.depth}.", f"Choose depth {', '.join(map(str, CONVOLUTIONS))}.")
        if len(self.widths) != 5:
            raise CheckpointError(f"widths names {len(self.widths)} blocks of a VGG.", "Name the channels of all five.")
        super().__post_init__(**kwargs)


class VggModel(PreTrainedModel):
    """pixel_values [N, 3, height, width] to last_hidden_state [N, C, height / 16, width / 16]."""

    config: VggConfig
    config_class = VggConfig
    base_model_prefix = "vgg"
    main_input_name = "pixel_values"

    def __init__(self, config: VggConfig) -> None:
        super().__init__(config)
        layers: list[nn.Module] = []
        channels = config.num_channels
        for count, width in zip(CONVOLUTIONS[config.depth], config.widths, strict=True):
            for _ in range(count):
                layers.append(nn.Conv2d(channels, width, kernel_size=3, padding=1))
                if config.batch_norm:
                    layers.append(nn.BatchNorm2d(width))
                layers.append(nn.ReLU())
                channels = width
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
        self.features = nn.Sequential(*(layers if config.final_pool else layers[:-1]))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # Thirteen layers of ReLU pass nothing on from weights of 0.02: He's scale keeps the variance.
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pixel_values: torch.Tensor, **_: object) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=self.features(pixel_values))


def open_vgg(depth: int, weights: str) -> VggModel:
    """A VGG with convolutions trained elsewhere; whether it is a "_bn" variant is seen from them.

    Args:
        depth: 11, 13, 16 or 19.
        weights: a .safetensors file or a state dict of PyTorch with `features.<n>.weight` in it, a folder with such a
            model.safetensors, or a hub name, such as timm/vgg19.tv_in1k.

    Raises:
        CheckpointError: they can't be read, or are of another VGG.
    """
    try:
        path = Path(hub.resolve(weights))
        if path.is_dir():
            path = path / "model.safetensors"
        elif not path.exists():
            path = Path(hf_hub_download(weights, "model.safetensors"))
        if path.suffix == ".safetensors":
            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
        batch_norm = any(name.endswith("running_mean") for name in found)
        tower = VggModel(VggConfig(depth=depth, batch_norm=batch_norm))
        tower.load_state_dict({name: found[name] for name in tower.state_dict()})
    except KeyError as error:
        raise CheckpointError(
            f"{weights} holds no VGG{depth}: it lacks {error}.", "Give weights of that depth."
        ) from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"The VGG weights {weights} could not be opened: {str(error).splitlines()[0]}",
            "Give a .safetensors or .pth file, or a hub name such as timm/vgg19.tv_in1k.",
        ) from error
    return tower


AutoConfig.register(VggConfig.model_type, VggConfig, exist_ok=True)
AutoModel.register(VggConfig, VggModel, exist_ok=True)
