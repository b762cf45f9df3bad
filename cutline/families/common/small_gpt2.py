"""A GPT-2 of any size from scratch."""

from __future__ import annotations

from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast


def ends(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """The ids of a tokenizer's markers, under the names of a config."""
    return {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}


def small_gpt2(
    tokenizer: PreTrainedTokenizerFast, *, width: int, layers: int, heads: int, positions: int, dropout: float
) -> GPT2LMHeadModel:
    """Has dropout everywhere: a few thousand captions are soon learnt by heart."""
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        n_positions=positions,
        **rates,
        **ends(tokenizer),
    )
    return GPT2LMHeadModel(config)
