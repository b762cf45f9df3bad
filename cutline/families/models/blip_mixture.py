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


class BlipMixture(BlipPreTrainedModel, GenerationMixin):
    """Heads: ``vision_proj`` and ``text_proj`` (ITC), ``itm_head`` (ITM), ``text_decoder.cls`` (LM); ``temperature`` is
    what the cosines of the contrastive loss are divided by, 0.07 at first and learnt."""

    def __init__(self, config: BlipConfig):
        super().__init__(config)
        text = config.text_config
        self.vision_model = BlipVisionModel(config.vision_config)
        self.text_encoder = BlipTextModel(text, add_pooling_layer=False)
        self.text_decoder = BlipTextLMHeadModel(text)
        self.vision_proj = nn.Linear(config.vision_config.hidden_size, config.image_text_hidden_size)
        self.text_proj = nn.Linear(text.hidden_size, config.image_text_hidden_size)
        self.itm_head = nn.Linear(text.hidden_size, 2)
        self.temperature = nn.Parameter(torch.tensor(0.07))
        self._tied_weights_keys = self._shared()
        self.post_init()

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
        return self.text_encoder.get_input_embeddings()  # type: ignore[no-any-return]

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_encoder.set_input_embeddings(value)
        self.text_decoder.set_input_embeddings(value)

    def forward(self, pixel_values: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        """The decoder's output, as ``BlipForConditionalGeneration`` has it."""
        features = self.vision_model(pixel_values=pixel_values).last_hidden_state
        return self.text_decoder(input_ids=input_ids, attention_mask=attention_mask, encoder_hidden_states=features)
