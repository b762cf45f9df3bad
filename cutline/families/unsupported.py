"""Checkpoints that people will give and that no family here opens: why, and which one to give instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_INTERNVL = (
    "Give the checkpoint in Hugging Face's own form, whose name ends in -hf: OpenGVLab/InternVL3-8B-hf instead of "
    "OpenGVLab/InternVL3-8B."
)
_LLAVA = "Give one in Hugging Face's own form, such as llava-hf/llava-1.5-7b-hf."
_ONEVISION = (
    "Give one in Hugging Face's own form, such as llava-hf/llava-onevision-qwen2-7b-ov-hf, of the family "
    "llava_onevision."
)
_QWEN = "Qwen/Qwen2.5-VL-7B-Instruct (family qwen2_5_vl) is a model of its size that opens here."
_PREFIX = "It is a language model without eyes; [model] family = vision_prefix joins it to a vision tower."

#: model_type → remedy, for checkpoints whose type no family has.
_INSTEAD: Mapping[str, str] = {
    "internvl_chat": _INTERNVL,
    "internvl_chat_v2": _INTERNVL,
    "internvl_chat_v3": _INTERNVL,
    "llava_llama": _LLAVA,
    "llava_mistral": _LLAVA,
    "llava_next": _ONEVISION,
    "llava_qwen": _ONEVISION,
    "idefics2": "HuggingFaceTB/SmolVLM2-2.2B-Instruct (family smolvlm) is of its makers and opens here.",
    "idefics3": "HuggingFaceTB/SmolVLM2-2.2B-Instruct (family smolvlm) is of its makers and opens here.",
    "qwen": _QWEN,
    "minicpmv": _QWEN,
    "phi3_v": _QWEN,
    "mllama": _QWEN,
    "qwen3_vl_moe": "Give one of the dense models, such as Qwen/Qwen3-VL-8B-Instruct, of the family qwen3_vl.",
    "gemma3n": "Give google/gemma-3-4b-it, of the family gemma3.",
    "gemma3_text": "The 1B and 270M models of Gemma 3 have no eyes; give google/gemma-3-4b-it, of the family gemma3.",
    "instructblip": "Give Salesforce/blip2-opt-2.7b or Salesforce/blip2-flan-t5-xl, of the family blip_2.",
    "git": "Give Salesforce/blip-image-captioning-base, of the family blip.",
    **dict.fromkeys(("gemma", "gemma2", "gpt2", "llama", "mistral", "opt", "qwen2", "qwen3", "smollm3"), _PREFIX),
}

#: model_type → remedy, for checkpoints that bring code of their own under a type that a family has.
_REMOTE: Mapping[str, str] = {
    "florence2": "Give the checkpoint in Hugging Face's own form: florence-community/Florence-2-large instead of "
    "microsoft/Florence-2-large.",
}


def instead_of(config: Mapping[str, Any], known: list[str]) -> tuple[str, str] | None:
    """Why a checkpoint can't be opened and what to do, or None when a family has its type.

    Args:
        config: its config.json.
        known: names of the families.
    """
    kind = str(config.get("model_type", "")).replace("-", "_")
    remote = bool(config.get("auto_map"))
    if kind in known and not (remote and kind in _REMOTE):
        return None
    why = "it needs code that comes with it, which Cutline doesn't run" if remote else "no family here has that type"
    remedy = _REMOTE.get(kind) or _INSTEAD.get(kind) or f"Families here: {', '.join(known)}."
    return f"is of the type {kind!r}: {why}.", remedy
