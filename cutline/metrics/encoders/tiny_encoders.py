"""Random miniatures of the models that metrics look through, of the real classes, built offline for rehearsals."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
)

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,'"
_SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}


def build(kind: str, seed: int = 6) -> tuple[nn.Module, Any, Any]:
    """Model, tokenizer and image processor (None for texts alone) of a kind: "clip", "bert" or "roberta".

    Args:
        seed: of the weights; with the default one, cosines of images and texts are mostly above 0, as in real models.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {"clip": _clip, "bert": _bert, "roberta": _roberta}[kind]()


def _clip() -> tuple[nn.Module, Any, Any]:
    vocabulary = _numbered("<|startoftext|>", "<|endoftext|>", *_LETTERS, *(f"{letter}</w>" for letter in _LETTERS))
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
    text = _SIZES | {
        "vocab_size": len(vocabulary),
        "max_position_embeddings": 77,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    vision = _SIZES | {"image_size": 32, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    side = {"height": 32, "width": 32}
    return model, tokenizer, CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=side)


def _bert() -> tuple[nn.Module, Any, Any]:
    pieces = [*_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    vocabulary = _numbered("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces)
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=128, **_SIZES)
    return BertModel(config), BertTokenizer(vocab=vocabulary, model_max_length=128), None


def _roberta() -> tuple[nn.Module, Any, Any]:
    vocabulary = _numbered("<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *_LETTERS)
    config = RobertaConfig(
        vocab_size=len(vocabulary),
        max_position_embeddings=130,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        **_SIZES,
    )
    return RobertaModel(config), RobertaTokenizer(vocab=vocabulary, merges=[], model_max_length=128), None


def _numbered(*pieces: str) -> dict[str, int]:
    return {piece: number for number, piece in enumerate(pieces)}
