"""Families whose text model is an encoder–decoder that reads the image's tokens and a prompt: BLIP-2 with Flan-T5,
Florence-2."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from cutline.core.records import Sample
from cutline.families.base import Batch
from cutline.families.common.chat import ChatFamily
from cutline.families.common.loss import IGNORED, caption_rows, pad_rows, token_nll
from cutline.families.outputs import Loss


class Seq2SeqFamily(ChatFamily):
    """Batches of these families: pixels or ``features``; ``input_ids`` and ``attention_mask`` [N, P], a prompt for each
    image with the image's tokens in it, padded on the right; with targets ``labels`` [R, L] of the decoder and ``rows``
    [R], each row's image. Vision part and text encoder run once an image, however many captions it has."""

    @abstractmethod
    def encode_prompts(self, batch: Batch) -> Tensor:
        """Bridge and text encoder: [N, P, D] hidden states."""

    @abstractmethod
    def decode_with_teacher_forcing(self, encoded: Tensor, mask: Tensor, decoder_input_ids: Tensor) -> Tensor:
        """The decoder with teacher forcing: [R, L, D] hidden states that ``lm_head`` takes.

        Args:
            encoded: [R, P, D]
            mask: [R, P] of the encoder's tokens.
            decoder_input_ids: [R, L]
        """

    @property
    @abstractmethod
    def decoder_prefix(self) -> list[int]:
        """What the decoder reads before the first word; all but the first of it stands in labels, as IGNORED."""

    def text_inputs(self, samples: Sequence[Sample], visual: Batch, with_targets: bool) -> Batch:
        prompts = self.prompts(samples, visual)
        batch = {
            "input_ids": pad_rows(prompts, self._pad),
            "attention_mask": pad_rows([[1] * len(prompt) for prompt in prompts], 0),
        }
        if with_targets:
            batch["rows"], captions = caption_rows(samples)
            prefix = [IGNORED] * (len(self.decoder_prefix) - 1)
            batch["labels"] = pad_rows([prefix + self._caption_ids(caption) for caption in captions], IGNORED)
        return batch

    def _decoder_inputs(self, labels: Tensor) -> Tensor:
        """Position t reads the token before label t: the prefix, then the caption."""
        prefix = torch.tensor(self.decoder_prefix, device=labels.device).expand(len(labels), -1)
        words = labels[:, prefix.shape[1] - 1 : -1]
        return torch.cat([prefix, words.masked_fill(words == IGNORED, self._pad)], 1)

    def plain_inputs(self, batch: Batch) -> dict[str, object]:
        """Keyword arguments with which the Hugging Face model's own ``forward`` sees a batch that holds pixels: what
        probes and tests hold this family's loss against. Logits at position t are of label t."""
        ids, rows = self._decoder_inputs(batch["labels"]), batch["rows"]
        shared: dict[str, object] = {
            name: batch[name][rows] for name in ("pixel_values", "input_ids", "attention_mask")
        }
        return shared | {"decoder_input_ids": ids, "decoder_attention_mask": torch.ones_like(ids)}

    def hidden_states(self, batch: Batch) -> Tensor:
        rows = batch["rows"]
        encoded, mask = self.encode_prompts(batch), batch["attention_mask"]
        return self.decode_with_teacher_forcing(encoded[rows], mask[rows], self._decoder_inputs(batch["labels"]))

    def forward(self, batch: Batch, label_smoothing: float = 0.0) -> Loss:
        nll, tokens = token_nll(
            self.hidden_states(batch), self.lm_head, batch["labels"], label_smoothing, batch.get("weights")
        )
        return Loss(nll, nll.new_zeros(()), tokens)

    def generation_inputs(self, batch: Batch) -> dict[str, object]:
        prefix = torch.tensor(self.decoder_prefix, device=batch["input_ids"].device)
        return {
            "encoder_outputs": BaseModelOutput(last_hidden_state=self.encode_prompts(batch)),
            "attention_mask": batch["attention_mask"],
            "decoder_input_ids": prefix.repeat(len(batch["input_ids"]), 1),
        }

    def returned_prompt_length(self, batch: Batch) -> int:
        return len(self.decoder_prefix)


def insert_image_embeddings(embeddings: Tensor, is_image: Tensor, images: Tensor) -> Tensor:
    """Text embeddings [R, P, D] with the image's tokens [R, T, D] at the T positions of each row where ``is_image``."""
    return embeddings.masked_scatter(is_image[..., None], images.to(embeddings.dtype))
