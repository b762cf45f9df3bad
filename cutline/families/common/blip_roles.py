"""The roles that BLIP gives one text transformer: writing captions, and reading texts alone or with an image.

Source: Li et al. 2022, arXiv:2201.12086; the evaluation of the authors' code for retrieval. The model's modules have
Hugging Face's names for them: ``text_encoder``, ``text_decoder``, ``vision_proj``, ``text_proj``, ``itm_head``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cutline.families.base import Batch, Family
from cutline.families.common.blip_matching import BlipMatching
from cutline.families.common.blip_texts import clean
from cutline.families.common.chat import ChatFamily
from cutline.families.common.matching import WholeMatching
from cutline.families.common.retrieval import RetrievalFamily, unit


class BlipRole(Family):
    """What both roles need."""

    @property
    def start_id(self) -> int:
        """[DEC]; the hub's tokenizers don't know it, the configuration does."""
        return int(self.model.config.text_config.bos_token_id)

    def memory(self, features: Tensor) -> Tensor:
        """Features [N, T, C] → what texts look at [N, T, D]; the features themselves where there is no bridge."""
        return features


class BlipWriter(BlipRole, ChatFamily):
    """The decoder reads [DEC], prompt and caption, and looks at the image."""

    can = frozenset({"caption"})

    @property
    def generator(self) -> Any:
        return self.model.text_decoder

    @property
    def trained_end_id(self) -> int:
        return int(self.tokenizer.sep_token_id)

    @property
    def end_ids(self) -> list[int]:
        return [self.trained_end_id]  # not the eos of the configuration, which stands for nothing

    @property
    def image_token_id(self) -> int:
        return -1  # the image has no place in the text

    def image_tokens(self, visual: Batch) -> list[int]:
        return [0] * len(visual["features"] if "features" in visual else visual["pixel_values"])

    def render(self, prompt: str) -> str:
        return prompt

    def _prompt_ids(self, prompt: str, image_tokens: int) -> list[int]:
        return [self.start_id, *self.tokenizer(self.render(prompt), add_special_tokens=False)["input_ids"]]

    def plain_inputs(self, batch: Batch) -> dict[str, object]:
        return super().plain_inputs(batch) | {"pixel_values": batch["pixel_values"][batch["rows"]]}

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        return {
            "input_ids": batch["input_ids"],
            "attention_mask": batch["attention_mask"],
            "encoder_hidden_states": self.memory(self.looked_at(batch)["features"])[batch["rows"]],
        }

    def read(self, batch: Batch) -> Tensor:
        decoder = self.model.text_decoder.bert
        return decoder(**self._inputs(batch), is_decoder=True, use_cache=False).last_hidden_state  # type: ignore[no-any-return]

    def generation_inputs(self, batch: Batch) -> dict[str, object]:
        inputs = self._inputs(batch)
        seen = inputs["encoder_hidden_states"]
        return inputs | {"encoder_attention_mask": torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device)}

    def head(self, hidden: Tensor) -> Tensor:
        return self.model.text_decoder.cls(hidden)  # type: ignore[no-any-return]


class BlipReader(BlipRole, RetrievalFamily):
    """Contrast (ITC) by the first position of image and text, each by itself; matching (ITM) by the text that has
    looked at the image."""

    can = frozenset({"embed", "match"})
    #: Words that a text is cut to, in the published evaluation.
    text_words = 30

    @property
    def text_tokens(self) -> int:
        return 35

    @property
    def match_start_id(self) -> int:
        """[ENC], which a text begins with when it looks at an image; Hugging Face's forward leaves [CLS] there."""
        known = self.tokenizer.get_vocab().get("[ENC]")
        return int(known) if known is not None else self.start_id + 1

    def encode_texts(self, texts: Sequence[str]) -> Batch:
        return self.tokenize([clean(text, self.text_words) for text in texts])

    def embed_images(self, batch: Batch) -> Tensor:
        return unit(self.model.vision_proj(self.looked_at(batch)["features"][:, 0]))

    def embed_texts(self, texts: Batch) -> Tensor:
        hidden = self.model.text_encoder(**texts).last_hidden_state
        return unit(self.model.text_proj(hidden[:, 0]))

    def match_logits(self, features: Batch, texts: Batch, images: Tensor) -> Tensor:
        ids = texts["input_ids"].clone()
        ids[:, 0] = self.match_start_id
        some, places = torch.unique(images, return_inverse=True)  # images that no text asks for cost nothing
        seen = self.memory(self.looked_at(features)["features"][some])[places]
        hidden = self.model.text_encoder(
            input_ids=ids, attention_mask=texts["attention_mask"], encoder_hidden_states=seen
        ).last_hidden_state
        return self.model.itm_head(hidden[:, 0])  # type: ignore[no-any-return]

    def match_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts that look at an image, without padding."""
        batch = self.encode_texts(texts)
        batch["input_ids"][:, 0] = self.match_start_id
        kept = zip(batch["input_ids"].tolist(), batch["attention_mask"].sum(1).tolist(), strict=True)
        return [ids[:length] for ids, length in kept]

    def matching(self, texts: Sequence[str]) -> WholeMatching:
        return BlipMatching(self, texts)
