"""Well-known checkpoints that no family opens: why, and which one to use instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_INTERNVL = (
    "Use the checkpoint in transformers format, whose name ends in -hf: OpenGVLab/InternVL3-8B-hf instead of "
    "OpenGVLab/InternVL3-8B."
)
_LLAVA = "Use one in transformers format, such as llava-hf/llava-1.5-7b-hf."
_ONEVISION = (
    "Use one in transformers format, such as llava-hf/llava-onevision-qwen2-7b-ov-hf, of the family llava_onevision."
)
_QWEN = "Qwen/Qwen2.5-VL-7B-Instruct (family qwen2_5_vl) is a model of similar size that is supported."
_PREFIX = "It is a language model without a vision tower; [model] family = vision_prefix adds one."

#: model_type → remedy, for checkpoints whose type no family has.
_INSTEAD: Mapping[str, str] = {
    "internvl_chat": _INTERNVL,
    "internvl_chat_v2": _INTERNVL,
    "internvl_chat_v3": _INTERNVL,
    "llava_llama": _LLAVA,
    "llava_mistral": _LLAVA,
    "llava_next": _ONEVISION,
    "llava_qwen": _ONEVISION,
    "idefics2": "HuggingFaceTB/SmolVLM2-2.2B-Instruct (family smolvlm) is by the same authors and is supported.",
    "idefics3": "HuggingFaceTB/SmolVLM2-2.2B-Instruct (family smolvlm) is by the same authors and is supported.",
    "qwen": _QWEN,
    "minicpmv": _QWEN,
    "phi3_v": _QWEN,
    "mllama": _QWEN,
    "qwen3_vl_moe": "Use one of the dense models, such as Qwen/Qwen3-VL-8B-Instruct, of the family qwen3_vl.",
    "gemma3n": "Use google/gemma-3-4b-it, of the family gemma3.",
    "gemma3_text": "The 1B and 270M models of Gemma 3 have no vision tower; use google/gemma-3-4b-it (family gemma3).",
    "instructblip": "Use Salesforce/blip2-opt-2.7b or Salesforce/blip2-flan-t5-xl, of the family blip_2.",
    "git": "Use Salesforce/blip-image-captioning-base, of the family blip.",
    **dict.fromkeys(("gemma", "gemma2", "gpt2", "llama", "mistral", "opt", "qwen2", "qwen3", "smollm3"), _PREFIX),
}

#: model_type → remedy, for checkpoints with remote code under a type that a family has.
_REMOTE: Mapping[str, str] = {
    "florence2": "Use the checkpoint in transformers format: florence-community/Florence-2-large instead of "
    "microsoft/Florence-2-large.",
}


def explain_unsupported(config: Mapping[str, Any], known: list[str]) -> tuple[str, str] | None:
    """Why a checkpoint can't be opened and what to do instead; None if a family has its type.

    Args:
        config: its config.json.
        known: names of the families.
    """
    kind = str(config.get("model_type", "")).replace("-", "_")
    remote = bool(config.get("auto_map"))
    if kind in known and not (remote and kind in _REMOTE):
        return None
    why = "it needs remote code, which Cutline doesn't run" if remote else "no family has that type"
    remedy = _REMOTE.get(kind) or _INSTEAD.get(kind) or f"Available families: {', '.join(known)}."
    return f"is of the type {kind!r}: {why}.", remedy
