"""BLIP's multimodal mixture of encoder–decoder: one image tower, one text transformer in three roles.

Source: Li et al. 2022, arXiv:2201.12086, section 3. The text encoder (contrast), the image-grounded encoder (matching)
and the image-grounded decoder (captions) share all layers but the decoder's self-attention. Built of Hugging Face's
modules, under the names that ``BlipForImageTextRetrieval`` gives them, so that it opens a saved mixture as well.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import BlipConfig, BlipPreTrainedModel, BlipTextModel, BlipVisionModel, GenerationMixin
from transformers.models.blip.modeling_blip_text import BlipTextLMHeadModel


class TextRoles:
    """What a Hugging Face model gets by inheriting it besides.

    Heads: ``vision_proj`` and ``text_proj`` (ITC), ``itm_head`` (ITM), ``text_decoder.cls`` (LM); ``temperature`` is
    what the cosines of the contrastive loss are divided by, 0.07 at first and learnt.
    """

    def add_roles(self, text: Any, channels: int, width: int) -> None:
        """Adds the text transformer and the heads.

        Args:
            text: a BlipTextConfig.
            channels: width of what an image's vector is made of.
            width: of the space that images and texts meet in.
        """
        self.text_encoder: Any = BlipTextModel(text, add_pooling_layer=False)
        self.text_decoder: Any = BlipTextLMHeadModel(text)
        self.vision_proj = nn.Linear(channels, width)
        self.text_proj = nn.Linear(text.hidden_size, width)
        self.itm_head = nn.Linear(text.hidden_size, 2)
        self.temperature = nn.Parameter(torch.tensor(0.07))
        self._tied_weights_keys = self._shared()

    def _shared(self) -> dict[str, str]:
        """Parameter of the decoder → the encoder's that it is."""
        shared = {
            f"text_decoder.bert.{name}": f"text_encoder.{name}"
            for name, _ in self.text_encoder.named_parameters()
            if ".attention." not in name
        }
        # last, since parameters are tied in this order, and the decoder's own rule ties its output to its embedding
        head = "text_decoder.cls.predictions"
        shared[f"{head}.decoder.weight"] = "text_encoder.embeddings.word_embeddings.weight"
        shared[f"{head}.decoder.bias"] = f"{head}.bias"
        return shared

    def get_input_embeddings(self) -> nn.Module:
        embeddings: nn.Module = self.text_encoder.get_input_embeddings()
        return embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_encoder.set_input_embeddings(value)
        self.text_decoder.set_input_embeddings(value)


class BlipMixture(TextRoles, BlipPreTrainedModel, GenerationMixin):
    def __init__(self, config: BlipConfig):
        super().__init__(config)
        self.vision_model = BlipVisionModel(config.vision_config)
        self.add_roles(config.text_config, config.vision_config.hidden_size, config.image_text_hidden_size)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        """The decoder's output, as ``BlipForConditionalGeneration`` has it."""
        features = self.vision_model(pixel_values=pixel_values).last_hidden_state
        return self.text_decoder(input_ids=input_ids, attention_mask=attention_mask, encoder_hidden_states=features)
