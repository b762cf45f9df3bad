"""Florence-2: a DaViT tower whose tokens stand before a question in the encoder of a BART.

Source: Xiao et al. 2023, arXiv:2311.06242; the code of Hugging Face transformers, which opens the checkpoints of
florence-community; Microsoft's own need remote code, which Cutline doesn't run. A task's token such as <CAPTION>
is replaced by its question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from transformers import (
    BartTokenizer,
    CLIPImageProcessorPil,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
)

from cutline.core.errors import CheckpointError
from cutline.families.base import Batch
from cutline.families.common.seq2seq import Seq2SeqFamily, insert_image_embeddings
from cutline.families.common.tiny import byte_level_bpe
from cutline.families.settings import ImagePolicy
from cutline.families.weights.quantize import Quantization


class Florence2(Seq2SeqFamily):
    default_prompt = "<CAPTION>"

    def __init__(self, model: Any, processor: Any, prompt: str | None = None):
        super().__init__(model, processor.image_processor, processor.tokenizer, prompt)
        self.processor = processor

    @property
    def parts(self) -> Mapping[str, str]:
        return {
            "vision": r"model\.vision_tower\.",
            "bridge": r"model\.multi_modal_projector\.",
            "head": r"lm_head\.",
            "text": r"model\.language_model\.(?:decoder\.layers\.(?P<layer>\d+)\.)?",
        }

    @classmethod
    def open(
        cls, checkpoint: str, dtype: torch.dtype = torch.float32, quantization: Quantization | None = None
    ) -> Self:
        model = cls.from_pretrained(Florence2ForConditionalGeneration, checkpoint, dtype, quantization)
        return cls(model, Florence2Processor.from_pretrained(checkpoint, backend="pil"))

    @classmethod
    def _tiny(cls, captions: Sequence[str]) -> Self:
        vocab, merges = byte_level_bpe(captions)
        vocab = dict(vocab)
        for marker in ("<s>", "<pad>", "</s>", "<unk>", "<mask>"):
            vocab.setdefault(marker, len(vocab))
        tokenizer = BartTokenizer(vocab=vocab, merges=merges, extra_special_tokens={"image_token": "<image>"})
        side = 64
        image_processor = CLIPImageProcessorPil(size={"height": side, "width": side}, do_center_crop=False)
        image_processor.image_seq_length = (side // 32) ** 2 + 1
        processor = Florence2Processor(image_processor=image_processor, tokenizer=tokenizer)
        special = {
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "decoder_start_token_id": tokenizer.eos_token_id,
        }
        text = {
            "model_type": "bart",
            "vocab_size": len(tokenizer),
            "d_model": 64,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 128,
            "decoder_ffn_dim": 128,
            "max_position_embeddings": 256,
            "dropout": 0.0,
            "forced_eos_token_id": None,
        }
        vision = {
            "depths": [1, 1, 1, 1],
            "embed_dim": [16, 16, 32, 32],
            "num_heads": [2, 2, 2, 2],
            "num_groups": [2, 2, 2, 2],
            "projection_dim": 64,
            "window_size": 4,
            "drop_path_rate": 0.0,
        }
        config = Florence2Config(
            vision_config=vision,
            text_config=text | special,
            image_token_id=tokenizer.image_token_id,
            **special,
        )
        return cls(Florence2ForConditionalGeneration(config), processor)

    def save(self, folder: str | Path) -> None:
        self.processor.save_pretrained(folder)
        super().save(folder)

    def set_policy(self, policy: ImagePolicy) -> None:
        if policy.size and policy.size % 32:
            raise CheckpointError(
                f"[model.image] size = {policy.size} is not a multiple of Florence-2's cells of 32 px.",
                f"Use {policy.size // 32 * 32 or 32} or {(policy.size // 32 + 1) * 32}.",
            )
        super().set_policy(policy)
        crop = self.image_processor.crop_size if self.image_processor.do_center_crop else self.image_processor.size
        self.image_processor.image_seq_length = (crop["height"] // 32) ** 2 + 1  # the saved processor reads it

    # ---- text

    @property
    def image_token_id(self) -> int:
        return int(self.model.config.image_token_id)

    @property
    def decoder_prefix(self) -> list[int]:
        """</s> starts a BART's decoder, and <s> is the first token that it was trained to write; here it is given."""
        return [int(self.model.config.text_config.decoder_start_token_id), int(self.tokenizer.bos_token_id)]

    def render(self, prompt: str) -> str:
        for task, question in self.processor.task_prompts_without_inputs.items():
            prompt = prompt.replace(task, question)
        return prompt

    def image_tokens(self, visual: Batch) -> list[int]:
        seen = visual.get("features")
        if seen is not None:  # [N, C, H, W]
            return [seen.shape[2] * seen.shape[3] + 1] * len(seen)
        pixels = visual["pixel_values"]
        return [-(-pixels.shape[2] // 32) * -(-pixels.shape[3] // 32) + 1] * len(pixels)

    def _prompt_ids(self, prompt: str, image_tokens: int) -> list[int]:
        text = self.tokenizer(self.render(prompt), add_special_tokens=False)["input_ids"]
        ends = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        return [*[self.image_token_id] * image_tokens, ends[0], *text, ends[1]]

    # ---- model

    def encode_images(self, batch: Batch) -> Batch:
        """``features`` [N, C, H, W], the tower's grid."""
        pixels = batch["pixel_values"].to(self.device, self.dtype)
        return {"features": self.model.model.vision_tower(pixels).last_hidden_state}

    def encode_prompts(self, batch: Batch) -> Tensor:
        inner, ids = self.model.model, batch["input_ids"]
        images = inner.multi_modal_projector(self.with_image_features(batch)["features"])
        embeddings = insert_image_embeddings(inner.get_input_embeddings()(ids), ids == self.image_token_id, images)
        encoder = inner.language_model.encoder
        return encoder(inputs_embeds=embeddings, attention_mask=batch["attention_mask"]).last_hidden_state  # type: ignore[no-any-return]

    def decode_with_teacher_forcing(self, encoded: Tensor, mask: Tensor, decoder_input_ids: Tensor) -> Tensor:
        return self.model.model.language_model.decoder(  # type: ignore[no-any-return]
            input_ids=decoder_input_ids,
            attention_mask=torch.ones_like(decoder_input_ids),  # causal: no position reads the padding on its right
            encoder_hidden_states=encoded,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state

    def lm_head(self, hidden: Tensor) -> Tensor:
        return self.model.lm_head(hidden)  # type: ignore[no-any-return]
