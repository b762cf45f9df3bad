"""CLIP: two transformers trained to find the text of an image among others.

Source: Radford et al. 2021, arXiv:2103.00020; the code of Hugging Face transformers. The text tower is causal and read
at its end token, so padding can be left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Self

from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer

from cutline.families.common.tiny import clip_bpe
from cutline.families.common.two_towers import TwoTowerFamily


class Clip(TwoTowerFamily):
    architecture = CLIPModel
    processor_class = CLIPProcessor

    @property
    def parts(self) -> Mapping[str, str]:
        return {
            "vision": r"vision_model\.(?:encoder\.layers\.(?P<layer>\d+)\.)?",
            "text": r"text_model\.(?:encoder\.layers\.(?P<layer>\d+)\.)?",
            "head": r"visual_projection\.|text_projection\.|logit_scale",
        }

    @classmethod
    def _tiny(cls, captions: Sequence[str]) -> Self:
        vocab, merges = clip_bpe(captions)
        tokenizer = CLIPTokenizer(vocab=vocab, merges=merges)
        size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        text = {
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 77,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        vision = {"image_size": 48, "patch_size": 8}
        model = CLIPModel(CLIPConfig(text_config=size | text, vision_config=size | vision, projection_dim=24))
        side = {"height": 48, "width": 48}
        return cls(model, CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size=side), tokenizer)

    def project(self, features: Tensor) -> Tensor:
        return self.model.visual_projection(features)  # type: ignore[no-any-return]

    def scale(self) -> tuple[Tensor, Tensor | None]:
        return self.model.logit_scale.exp(), None

    def bound_scale(self) -> None:
        self.model.logit_scale.data.clamp_(max=math.log(100))
