"""SigLIP, and SigLIP 2 at a fixed resolution: two transformers trained pair by pair with a sigmoid loss.

Source: Zhai et al. 2023, arXiv:2303.15343; Tschannen et al. 2025, arXiv:2502.14786; the code of Hugging Face
transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel, SiglipProcessor

from cutline.families.common.siglip import TINY_SIZE, SiglipFamily, tiny_text, tiny_tokenizer


class Siglip(SiglipFamily):
    architecture = SiglipModel
    processor_class = SiglipProcessor

    @classmethod
    def _tiny(cls, captions: Sequence[str]) -> Self:
        tokenizer = tiny_tokenizer(captions)
        vision = {"image_size": 48, "patch_size": 8}
        model = SiglipModel(
            SiglipConfig(text_config=TINY_SIZE | tiny_text(tokenizer), vision_config=TINY_SIZE | vision)
        )
        return cls(model, SiglipImageProcessorPil(size={"height": 48, "width": 48}), tokenizer)
