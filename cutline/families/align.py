"""ALIGN: an EfficientNet and a BERT trained on noisy pairs.

Source: Jia et al. 2021, arXiv:2102.05918; the code of Hugging Face transformers, whose weights are Kakao Brain's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from torch import Tensor
from transformers import (
    AlignConfig,
    AlignModel,
    AlignProcessor,
    BertTokenizer,
    EfficientNetImageProcessorPil,
)

from cutline.families.common.tiny import wordpiece
from cutline.families.common.two_towers import TwoTowerFamily


class Align(TwoTowerFamily):
    architecture = AlignModel
    processor_class = AlignProcessor
    # BERT's pooler: the text's vector is the first position's hidden state, projected
    unused = r"text_model\.pooler\."

    @property
    def parts(self) -> Mapping[str, str]:
        return {
            "vision": r"vision_model\.(?:encoder\.blocks\.(?P<layer>\d+)\.)?",
            "text": r"text_model\.(?:encoder\.layer\.(?P<layer>\d+)\.)?",
            "head": r"text_projection\.|temperature",
        }

    @property
    def text_tokens(self) -> int:
        return 64  # as it was trained and is evaluated

    @classmethod
    def _tiny(cls, captions: Sequence[str]) -> Self:
        tokenizer = BertTokenizer(vocab=wordpiece(captions), do_lower_case=True)
        text = {
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "pad_token_id": tokenizer.pad_token_id,
        }
        vision = {
            "width_coefficient": 1.0,
            "depth_coefficient": 1.0,
            "kernel_sizes": [3, 3],
            "in_channels": [32, 16],
            "out_channels": [16, 24],
            "strides": [1, 2],
            "num_block_repeats": [1, 1],
            "expand_ratios": [1, 2],
            "hidden_dim": 32,
            "image_size": 48,
            "drop_connect_rate": 0.0,
        }
        model = AlignModel(AlignConfig(text_config=text, vision_config=vision, projection_dim=24))
        processor = EfficientNetImageProcessorPil(
            size={"height": 48, "width": 48}, do_center_crop=False, include_top=False, rescale_offset=True,
            rescale_factor=1 / 127.5, do_normalize=False,
        )  # fmt: skip
        return cls(model, processor, tokenizer)

    def scale(self) -> tuple[Tensor, Tensor | None]:
        return 1 / self.model.temperature, None

    def bound_scale(self) -> None:
        self.model.temperature.data.clamp_(min=0.001)
