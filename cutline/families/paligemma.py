"""PaliGemma and PaliGemma 2: SigLIP, one linear layer, Gemma, read as a prefix language model.

Source: Beyer et al. 2024, arXiv:2407.07726; Steiner et al. 2024, arXiv:2412.03555; the code of Hugging Face
transformers. Attention over image and prompt is bidirectional; the caption attends to them and to its own past. The
prompt is not a chat: image tokens, one <bos>, the prompt, a newline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor
from transformers import (
    GemmaTokenizer,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    SiglipImageProcessorPil,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from cutline.core.errors import CheckpointError
from cutline.families.base import Batch
from cutline.families.common.spliced import SplicedFamily
from cutline.families.common.tiny import sentencepiece_bpe, tiny_text, tiny_vision
from cutline.families.settings import ImagePolicy


class PaliGemma(SplicedFamily):
    model_class = PaliGemmaForConditionalGeneration
    processor_class = PaliGemmaProcessor
    default_prompt = "caption en"
    bidirectional = frozenset({"prompt"})
    # some towers are saved with their pooling head; nothing reads it
    unused = r"model\.vision_tower\.(?:vision_model\.)?head\."

    @classmethod
    def _tiny(cls, captions: Sequence[str]) -> Self:
        vocab, merges = sentencepiece_bpe(captions)
        tokenizer = GemmaTokenizer(vocab=vocab, merges=merges, padding_side="right")
        image_processor = SiglipImageProcessorPil(size={"height": 56, "width": 56})
        image_processor.image_seq_length = 16
        processor = PaliGemmaProcessor(image_processor=image_processor, tokenizer=tokenizer)
        ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        size = {"image_size": 56, "patch_size": 14}
        vision = tiny_vision(model_type="siglip_vision_model", **size, vision_use_head=False, projection_dim=64)
        text = tiny_text(tokenizer, model_type="gemma", num_key_value_heads=1, head_dim=16)
        config = PaliGemmaConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=processor.image_token_id,
            projection_dim=64,
            hidden_size=64,
            **ends,
        )
        return cls(PaliGemmaForConditionalGeneration(config), processor)

    def set_policy(self, policy: ImagePolicy) -> None:
        if policy.size:
            raise CheckpointError(
                "paligemma has one input size; [model.image] size doesn't apply.",
                "Use the checkpoint of the size: …-224, …-448 or …-896.",
            )
        super().set_policy(policy)

    # ---- text

    def render(self, prompt: str) -> str:
        return f"{self.placeholder}{self.tokenizer.bos_token}{prompt}\n"

    def _tokens(self, rendered: str) -> list[int]:
        ids: list[int] = self.tokenizer(rendered, add_special_tokens=False)["input_ids"]
        return ids  # <bos> stands behind the image

    @property
    def answer_start(self) -> str:
        return ""

    @property
    def trained_end_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def _answer_opener(self) -> str:
        return ""  # prefix and suffix are tokenized apart

    def image_texts(self, visual: Batch) -> list[str]:
        images = len(visual["features"] if "features" in visual else visual["pixel_values"])
        return [self.placeholder * int(self.processor.image_seq_length)] * images

    def token_types(self, batch: Batch) -> dict[str, Tensor]:
        """0 for the prefix, which is read in both directions, 1 for the caption. Without them transformers makes all
        attention bidirectional, and each token of a caption sees the one that it predicts."""
        ids = batch["input_ids"]
        if "prompt_lengths" not in batch:
            return {"token_type_ids": torch.zeros_like(ids)}
        positions = torch.arange(ids.shape[1], device=ids.device)
        return {"token_type_ids": (positions >= batch["prompt_lengths"][:, None]).long()}

    # ---- images

    def encode_images(self, batch: Batch) -> Batch:
        pixels = batch["pixel_values"].to(self.device, self.dtype)
        return {"features": self.model.model.vision_tower(pixels).last_hidden_state}

    def bridge(self, features: Batch, rows: Tensor) -> BaseModelOutputWithPooling:
        projected = self.model.model.multi_modal_projector(features["features"])
        return BaseModelOutputWithPooling(pooler_output=projected[rows])

    # ---- language model

    def lm_head(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.model.lm_head(hidden)
        cap = getattr(self.model.config.text_config, "final_logit_softcapping", None)
        return torch.tanh(logits / cap) * cap if cap else logits  # PaliGemma 2
