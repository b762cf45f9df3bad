"""BLIP's mixture of encoder–decoder on any vision tower, small enough to be trained from scratch on a CPU.

Sources: the mixture is BLIP's (Li et al. 2022, arXiv:2201.12086, section 3), the text transformer Hugging Face's BLIP
text model. What differs: the tower is any vision model, whose cells go through a layer norm and a linear layer before
texts look at them, and the image's vector for contrast is made of their mean, since not every tower has a class token.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from transformers import AutoConfig, BlipTextConfig, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.configuration_utils import SubConfigSpec

from cutline.families.models.blip_mixture import TextRoles
from cutline.families.models.tower import as_cells, build_tower, channels_of, keep_statistics


class VisionMixtureConfig(PreTrainedConfig):
    """The settings of a VisionMixture.

    vision_config: the tower's own config, or its dict with `model_type`. text_config: a BlipTextConfig, whose
    encoder_hidden_size is its hidden_size. feature_size: channels of the tower; None: found out. embed_size: width of
    the space that images and texts meet in. feature_dropout: on what is made of the tower's features.
    """

    model_type = "vision_mixture"
    sub_configs_defaults: ClassVar = {
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="mobilenet_v2"),
        "text_config": SubConfigSpec(config_class=BlipTextConfig),
    }

    vision_config: PreTrainedConfig | dict[str, Any] | None = None
    text_config: PreTrainedConfig | dict[str, Any] | None = None
    feature_size: int | None = None
    embed_size: int = 256
    feature_dropout: float = 0.0
    tie_word_embeddings: bool = True  # and all else that the roles share


class VisionMixture(TextRoles, PreTrainedModel, GenerationMixin):
    """Parts: ``vision_tower``, ``bridge``, ``text_encoder`` and ``text_decoder``, and the heads of ``TextRoles``."""

    config: VisionMixtureConfig
    config_class = VisionMixtureConfig
    base_model_prefix = "vision_mixture"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True

    def __init__(self, config: VisionMixtureConfig, vision_tower: PreTrainedModel | None = None) -> None:
        """A model with random weights but for a tower that is given, which it takes over."""
        super().__init__(config)
        self.vision_tower: Any = build_tower(config.vision_config) if vision_tower is None else vision_tower
        if config.feature_size is None:
            config.feature_size = channels_of(self.vision_tower)
        width = config.text_config.hidden_size  # type: ignore[union-attr]
        # without weights of its own: behind a frozen tower no gradient then goes through it
        self.norm = nn.LayerNorm(config.feature_size, elementwise_affine=False)
        self.dropout = nn.Dropout(config.feature_dropout)
        self.bridge = nn.Linear(config.feature_size, width)
        self.add_roles(config.text_config, config.feature_size, config.embed_size)
        self.post_init()
        keep_statistics(self.vision_tower)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """For bridge and heads; the tower and the text transformer initialise themselves."""
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, std=0.5 / module.in_features**0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    def train(self, mode: bool = True) -> VisionMixture:
        super().train(mode)
        keep_statistics(self.vision_tower)
        return self

    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values [N, 3, height, width] → features [N, T, C]: what can be cached while the tower is frozen."""
        return as_cells(self.vision_tower(pixel_values).last_hidden_state)

    def normed(self, features: torch.Tensor) -> torch.Tensor:
        """[N, T, C] → [N, T, C], freed of the tower's scale; caches are in 16 bits."""
        normed: torch.Tensor = self.norm(features.to(self.bridge.weight.dtype))
        return normed

    def remember(self, features: torch.Tensor) -> torch.Tensor:
        """Features [N, T, C] → what texts look at [N, T, D]."""
        memory: torch.Tensor = self.dropout(self.bridge(self.normed(features)))
        return memory

    def pooled(self, features: torch.Tensor) -> torch.Tensor:
        """Features [N, T, C] → the image's vector [N, E], of any length."""
        vector: torch.Tensor = self.vision_proj(self.dropout(self.normed(features).mean(1)))
        return vector

    def forward(self, pixel_values: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        """The decoder's output, as ``BlipForConditionalGeneration`` has it."""
        memory = self.remember(self.encode_images(pixel_values))
        return self.text_decoder(input_ids=input_ids, attention_mask=attention_mask, encoder_hidden_states=memory)


AutoConfig.register(VisionMixtureConfig.model_type, VisionMixtureConfig, exist_ok=True)
