"""What both SigLIPs have: a text tower without a mask, read at its last position; texts are padded to the full length.

Source: Zhai et al. 2023, arXiv:2303.15343; Tschannen et al. 2025, arXiv:2502.14786; the code of Hugging Face
transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from transformers import GemmaTokenizer

from cutline.families.base import Batch
from cutline.families.common.retrieval import unit
from cutline.families.common.tiny import sentencepiece_bpe
from cutline.families.common.two_towers import TwoTowerFamily

#: What both miniatures have in common.
TINY_SIZE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


class SiglipFamily(TwoTowerFamily):
    contrast = "sigmoid"

    @property
    def parts(self) -> Mapping[str, str]:
        return {
            "vision": r"vision_model\.(?:encoder\.layers\.(?P<layer>\d+)\.)?",
            "head": r"text_model\.head\.|logit_scale|logit_bias",
            "text": r"text_model\.(?:encoder\.layers\.(?P<layer>\d+)\.)?",
        }

    def encode_texts(self, texts: Sequence[str]) -> Batch:
        # lower case is what both generations were trained on; not every copy of their tokenizers sees to it
        batch = self.tokenize([text.lower() for text in texts], padding="max_length")
        return {"input_ids": batch["input_ids"]}

    def scale(self) -> tuple[Tensor, Tensor | None]:
        return self.model.logit_scale.exp(), self.model.logit_bias

    def embed_texts(self, texts: Batch) -> Tensor:
        return unit(self.model.text_model(**texts).pooler_output)


def tiny_tokenizer(captions: Sequence[str]) -> Any:
    """A tokenizer of SentencePiece's kind; <eos> ends every text."""
    vocab, merges = sentencepiece_bpe(captions)
    return GemmaTokenizer(vocab=vocab, merges=merges, padding_side="right", add_bos_token=False, add_eos_token=True)


def tiny_text(tokenizer: Any) -> dict[str, Any]:
    """The text configuration of a miniature with this tokenizer."""
    return {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 32,
        "projection_size": 32,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
