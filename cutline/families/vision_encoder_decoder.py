"""``VisionEncoderDecoderModel``: any vision transformer and any causal text model joined by cross-attention (ViT-GPT2).

Source: Hugging Face transformers; the checkpoint that most people mean is nlpconnect/vit-gpt2-image-captioning. It has
no processor class of its own: image processor and tokenizer stand side by side in the folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from pydantic import Field
from torch import Tensor
from transformers import (
    GPT2Tokenizer,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
)

from cutline.core.config import parse
from cutline.core.errors import CheckpointError
from cutline.families.base import Batch
from cutline.families.common.encoder_decoder import EncoderDecoderFamily
from cutline.families.common.from_scratch import SmallHalves, gpt2_config
from cutline.families.common.tiny import byte_level_bpe
from cutline.families.weights.quantize import Quantization


class New(SmallHalves):
    """``[model.new]``: a ViT and a GPT-2 from scratch, with a byte-level BPE of the training captions."""

    vocabulary: int = Field(420, ge=258, description="number of tokens of the byte-level BPE")
    max_position_embeddings: int = Field(64, ge=4, description="number of positions of the GPT-2: its longest text")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout of the GPT-2")


class VisionEncoderDecoder(EncoderDecoderFamily):
    architecture = VisionEncoderDecoderModel
    # the ViT has a pooler, but nothing reads it
    unused = r"encoder\.pooler\."

    @property
    def parts(self) -> Mapping[str, str]:
        return {
            "vision": r"encoder\.(?:.*\.(?P<layer>\d+)\.)?",
            "bridge": r"enc_to_dec_proj\.|decoder\..*(?:crossattention|ln_cross_attn|encoder_attn)",
            "head": r"decoder\.(?:lm_head|cls|output_projection)\.",
            "text": r"decoder\.(?:.*\.(?P<layer>\d+)\.)?",
        }

    @classmethod
    def open(
        cls, checkpoint: str, dtype: torch.dtype = torch.float32, quantization: Quantization | None = None
    ) -> Self:
        family = super().open(checkpoint, dtype, quantization)
        config, generation = family.config, family.model.generation_config
        for key in ("decoder_start_token_id", "eos_token_id", "pad_token_id", "bos_token_id"):
            if getattr(generation, key, None) is None:  # older checkpoints have it in the decoder's config only
                token = getattr(config, key, None)
                setattr(generation, key, token if token is not None else getattr(config.decoder, key, None))
        if generation.decoder_start_token_id is None:
            generation.decoder_start_token_id = generation.bos_token_id
        if generation.eos_token_id is None or generation.decoder_start_token_id is None:
            raise CheckpointError(
                f"{checkpoint} doesn't define which tokens start and end a caption.",
                "Add decoder_start_token_id and eos_token_id to its generation_config.json.",
            )
        return family

    @classmethod
    def _new(cls, settings: Mapping[str, Any], captions: Sequence[str]) -> Self:
        sizes = parse(dict(settings), New, where="[model.new]")
        vocab, merges = byte_level_bpe(captions, sizes.vocabulary)
        # pad and end must be different tokens, or an end that is masked as padding would never be learnt
        tokenizer = GPT2Tokenizer(
            vocab=vocab,
            merges=merges,
            bos_token="<|start|>",
            eos_token="<|end|>",
            unk_token="<|end|>",
            pad_token="<|pad|>",
        )
        encoder, image_processor = sizes.vit()
        decoder = gpt2_config(
            tokenizer,
            width=sizes.text_width,
            layers=sizes.text_layers,
            heads=sizes.heads,
            positions=sizes.max_position_embeddings,
            dropout=sizes.dropout,
            is_decoder=True,
            add_cross_attention=True,
        )
        config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
        model = VisionEncoderDecoderModel(config=config)
        for config in (model.config, model.generation_config):
            config.decoder_start_token_id = config.bos_token_id = tokenizer.bos_token_id
            config.eos_token_id = tokenizer.eos_token_id
            config.pad_token_id = tokenizer.pad_token_id
        return cls(model, image_processor, tokenizer)

    @classmethod
    def _tiny(cls, captions: Sequence[str]) -> Self:
        sizes = {"vision_layers": 2, "vision_width": 32, "text_layers": 2, "text_width": 64}
        return cls._new(sizes, captions)

    def encode_images(self, batch: Batch) -> Batch:
        pixels = batch["pixel_values"].to(self.device, self.dtype)
        return {"features": self.model.encoder(pixel_values=pixels).last_hidden_state}

    def decode_with_teacher_forcing(
        self, features: Tensor, rows: Tensor, decoder_input_ids: Tensor, is_label: Tensor
    ) -> tuple[Tensor, Tensor]:
        if hasattr(self.model, "enc_to_dec_proj"):
            features = self.model.enc_to_dec_proj(features)
        decoder = self.model.decoder
        hidden = decoder.base_model(
            input_ids=decoder_input_ids,
            attention_mask=torch.ones_like(decoder_input_ids),  # causal: no position reads the padding on its right
            encoder_hidden_states=features[rows],
            use_cache=False,
        ).last_hidden_state
        return hidden, hidden.new_zeros(())

    def decoder_start_inputs(self, images: int) -> dict[str, Tensor]:
        # without a mask GPT-2 warns about the padding after finished captions, which nothing reads
        return {"decoder_attention_mask": torch.ones(images, 1, dtype=torch.int64, device=self.device)}

    def lm_head(self, hidden: Tensor) -> Tensor:
        decoder = self.model.decoder
        # BERT-like decoders have a transform before the output embedding
        layer = getattr(decoder, "cls", None) or decoder.get_output_embeddings()
        return layer(hidden)  # type: ignore[no-any-return]
