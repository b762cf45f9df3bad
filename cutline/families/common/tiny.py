"""Parts of miniature models: small configurations, and tokenizers built offline from a few hundred words."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from cutline.families.common.vocabulary import cut_words, word_pieces
from cutline.images.shapes import caption, scenes

_SENTENCES = (
    "Describe the image in one sentence.",
    "You are a helpful assistant.",
    "user assistant system",
    "the quick brown fox jumps over the lazy dog",
)


@functools.cache
def example_texts() -> tuple[str, ...]:
    """Captions of drawn shapes, and a few other sentences."""
    return (*map(caption, scenes()), *_SENTENCES)


def tiny_vision(**more: Any) -> dict[str, Any]:
    """The entries of a configuration that all vision towers have, for one of two layers; ``more`` adds others."""
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    } | more


def tiny_text(tokenizer: Any, **more: Any) -> dict[str, Any]:
    """The entries of a configuration that all causal language models have, for one of two layers; ``more`` adds
    others."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    } | more


def with_ends(model: Any, tokenizer: Any) -> Any:
    """The model, with the tokenizer's end and padding token in its generation config, as published checkpoints have."""
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def qwen2_tokenizer(captions: Sequence[str], **named: str) -> Qwen2Tokenizer:
    """A Qwen2Tokenizer with a vocabulary of a few hundred tokens, ChatML's turns and other named special tokens."""
    vocab, merges = byte_level_bpe(captions)
    tokenizer = Qwen2Tokenizer(
        vocab=vocab,
        merges=merges,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        extra_special_tokens=named,
    )
    turns = {"additional_special_tokens": ["<|im_start|>"]}
    tokenizer.add_special_tokens(turns, replace_extra_special_tokens=False)
    return tokenizer


def fast_tokenizer(
    captions: Sequence[str], *, bos: str, eos: str, pad: str, extra: Sequence[str] = (), **named: str
) -> PreTrainedTokenizerFast:
    """A tokenizer without a class of its own, on a byte-level vocabulary of a few hundred tokens.

    Args:
        captions: what the vocabulary is learnt from; sentences on drawn shapes when empty.
        bos, eos, pad: the tokens for beginning, end and padding.
        extra: more special tokens.
        named: special tokens that the processor reads as attributes (``image_token="<image>"``).
    """
    vocab, merges = byte_level_bpe(captions)
    backend = Tokenizer(models.BPE(vocab, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=eos,
        pad_token=pad,
        bos_token=bos,
        padding_side="left",
        extra_special_tokens=named,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(extra)}, replace_extra_special_tokens=False)
    return tokenizer


def byte_level_bpe(texts: Sequence[str] = (), size: int = 420) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-level BPE: any text can be encoded, frequent words are one token.

    Args:
        texts: what to learn from; sentences on drawn shapes when empty.
        size: number of tokens, at least the 256 bytes.
    """
    return _byte_level_bpe(tuple(texts) or example_texts(), size)


@functools.lru_cache(8)
def _byte_level_bpe(texts: tuple[str, ...], size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def sentencepiece_bpe(
    texts: Sequence[str] = (), size: int = 520, markers: Sequence[str] = ("<pad>", "<eos>", "<bos>", "<unk>")
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a SentencePiece BPE, as Gemma and Llama use: spaces are "▁", unknown characters become
    bytes. The markers come first.

    Args:
        texts: what to learn from; sentences on drawn shapes when empty.
        size: number of tokens, at least the 256 bytes and the markers.
        markers: special tokens, "<unk>" among them.
    """
    return _sentencepiece_bpe(tuple(texts) or example_texts(), size, tuple(markers))


@functools.lru_cache(8)
def _sentencepiece_bpe(
    texts: tuple[str, ...], size: int, markers: tuple[str, ...]
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    first = [*markers, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=first, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def wordpiece(texts: Sequence[str] = (), size: int = 300) -> dict[str, int]:
    """A lower-case WordPiece vocabulary with BERT's markers.

    Args:
        texts: what to learn from; sentences on drawn shapes when empty.
        size: number of tokens.
    """
    return _wordpiece(tuple(texts) or example_texts(), size)


@functools.lru_cache(8)
def _wordpiece(texts: tuple[str, ...], size: int) -> dict[str, int]:
    return word_pieces(texts, size)


def clip_bpe(texts: Sequence[str] = (), size: int = 700) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of CLIP's BPE: lower case, with a mark at the end of each word.

    Args:
        texts: what to learn from; sentences on drawn shapes when empty.
        size: number of tokens, at least twice the 256 bytes.
    """
    return _clip_bpe(tuple(texts) or example_texts(), size)


@functools.lru_cache(8)
def _clip_bpe(texts: tuple[str, ...], size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    markers = ["<|startoftext|>", "<|endoftext|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=markers[1], continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    last = sorted({word[-1] + "</w>" for word in cut_words(tokenizer, texts)})
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[*markers, *last],
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocab: dict[str, int] = model["vocab"]
    for letter in sorted(alphabet):
        vocab.setdefault(letter + "</w>", len(vocab))
    return vocab, [tuple(merge) for merge in model["merges"]]


def unigram(texts: Sequence[str] = (), size: int = 300) -> list[tuple[str, float]]:
    """Pieces and scores of a unigram model, as T5 uses; the three markers come first.

    Args:
        texts: what to learn from; sentences on drawn shapes when empty.
        size: number of pieces, at most.
    """
    return _unigram(tuple(texts) or example_texts(), size)


@functools.lru_cache(8)
def _unigram(texts: tuple[str, ...], size: int) -> list[tuple[str, float]]:
    markers = ["<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    trainer = trainers.UnigramTrainer(
        vocab_size=size,
        special_tokens=markers,
        unk_token="<unk>",
        initial_alphabet=[chr(code) for code in range(33, 127)],  # any English word can be spelt
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    pieces = json.loads(tokenizer.to_str())["model"]["vocab"]
    return [*map(tuple, pieces[:3]), *_in_order(pieces[3:])]


def _in_order(pieces: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """The same pieces, with letters that occur in no text in alphabetical order.

    The trainer gives them the lowest scores, 0.0001 apart, in the order of a hash table, which differs between runs.
    """
    bound = min(score for _, score in pieces) + 1e-4 * len(pieces)
    unseen = sorted(piece for piece, score in pieces if score < bound and len(piece) == 1)
    scores = dict(zip(unseen, sorted((dict(pieces)[piece] for piece in unseen), reverse=True), strict=True))
    scored = [(piece, round(scores.get(piece, score), 9)) for piece, score in pieces]
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))
