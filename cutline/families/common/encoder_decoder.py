"""Families whose decoder looks at the image's features from beside the text: no prompt, no image tokens in the text."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from cutline.core.records import Sample
from cutline.families.base import Batch, Family
from cutline.families.common import decode
from cutline.families.common.loss import IGNORED, caption_rows, pad_rows, token_nll
from cutline.families.forced_decoding import ForcedDecoding
from cutline.families.outputs import Generation, Loss
from cutline.families.settings import GenerateSettings


class EncoderDecoderFamily(Family):
    """Batches of these families: ``pixel_values`` [N, 3, H, W] or ``features`` [N, T, C]; with targets ``labels``
    [R, L] (caption, end token, IGNORED) and ``rows`` [R], each row's image. The vision part runs once an image, however
    many captions it has."""

    tasks = frozenset({"caption"})

    @abstractmethod
    def decode_with_teacher_forcing(
        self, features: Tensor, rows: Tensor, decoder_input_ids: Tensor, is_label: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Runs bridge and decoder with teacher forcing.

        Args:
            features: [N, T, C]
            rows: [R] each row's image.
            decoder_input_ids: [R, L]
            is_label: [R, L] where something is to be predicted; all of a row's first positions up to its end.

        Returns:
            Hidden states [R, L, D] that ``lm_head`` takes (meaningful where ``is_label``), and the penalty: a scalar
            that is to be divided by the number of labels, 0 for none.
        """

    @abstractmethod
    def lm_head(self, hidden: Tensor) -> Tensor:
        """[M, D] hidden states → [M, V] logits."""

    @property
    def start_id(self) -> int:
        return int(self.model.generation_config.decoder_start_token_id)

    @property
    def end_ids(self) -> list[int]:
        ends = self.model.generation_config.eos_token_id
        return list(ends) if isinstance(ends, list | tuple) else [ends]

    def text_inputs(self, samples: Sequence[Sample], visual: Batch, with_targets: bool) -> Batch:
        if not with_targets:
            return {}
        rows, captions = caption_rows(samples)
        end = self.end_ids[:1]
        targets = [self.tokenizer(caption, add_special_tokens=False)["input_ids"] + end for caption in captions]
        return {"labels": pad_rows(targets, IGNORED), "rows": rows}

    def plain_inputs(self, batch: Batch) -> dict[str, object]:
        """Keyword arguments with which the Hugging Face model's own ``forward`` sees a batch that holds pixels: what
        probes and tests hold this family's loss against. Logits at position t are of label t."""
        labels = batch["labels"]
        ids = torch.cat([torch.full_like(labels[:, :1], self.start_id), labels[:, :-1].clamp(min=0)], 1)
        return {
            "pixel_values": batch["pixel_values"][batch["rows"]],
            "decoder_input_ids": ids,
            "decoder_attention_mask": torch.ones_like(ids),
        }

    def forward(self, batch: Batch, label_smoothing: float = 0.0) -> Loss:
        labels = batch["labels"]
        features = self.with_image_features(batch)["features"]
        start = torch.full_like(labels[:, :1], self.start_id)
        pad = self.model.generation_config.pad_token_id
        # position t reads the token before it: the start token, then the caption; after the end nothing is a target
        inputs = torch.cat([start, labels[:, :-1]], 1)
        inputs = inputs.masked_fill(inputs == IGNORED, pad if pad is not None else self.start_id)
        hidden, penalty = self.decode_with_teacher_forcing(features, batch["rows"], inputs, labels != IGNORED)
        nll, tokens = token_nll(hidden, self.lm_head, labels, label_smoothing, batch.get("weights"))
        return Loss(nll, penalty, tokens)

    def decoder_start_inputs(self, images: int) -> dict[str, Tensor]:
        """What ``generate`` is told of the decoder's start tokens, one an image."""
        return {}

    def generate(
        self,
        batch: Batch,
        settings: GenerateSettings,
        *,
        forced: ForcedDecoding | None = None,
        num_return_sequences: int = 1,
    ) -> list[Generation]:
        with torch.no_grad():
            features = self.with_image_features(batch)["features"]
        return decode.generate(
            self.model,
            self.tokenizer,
            settings,
            {
                "encoder_outputs": BaseModelOutput(last_hidden_state=features),
                **self.decoder_start_inputs(len(features)),
            },
            ends=self.end_ids,
            prompt_tokens=1,
            forced=forced,
            num_return_sequences=num_return_sequences,
        )
