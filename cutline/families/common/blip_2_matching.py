"""BLIP-2's image–text matching for many texts of one image, without doing anything twice.

The function is that of ``Blip2ForImageTextRetrieval``'s matching head. The Q-Former's keys and values of the image are
made once an image and not again for each text, texts run in groups of equal length without padding, and of the last
layer only the queries are computed, which are all that is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cutline.families.base import Batch
from cutline.families.common.matching import WholeMatching, join_heads, split_heads
from cutline.families.common.retrieval import RetrievalFamily


class Blip2Matching(WholeMatching):
    """Q: queries, L: tokens of a text, D: width, H: heads, T: positions of the image."""

    def __init__(self, family: RetrievalFamily, texts: Sequence[str], tokens_at_once: int = 4096):
        """Prepares M texts.

        Args:
            family: a matcher; its dtype and device are used.
            texts: M texts, as people wrote them.
            tokens_at_once: queries and tokens that run in one go; bounds the memory.
        """
        assert not family.training
        self.model, self.qformer = family.model, family.model.qformer
        self.layers: list[Any] = list(self.qformer.encoder.layer)
        self.heads = self.qformer.config.num_attention_heads
        self.tokens_at_once = tokens_at_once
        batch = family.encode_texts(texts)
        self.ids = batch["input_ids"]  # [M, longest]
        self.lengths = batch["attention_mask"].sum(1)  # [M]

    @torch.no_grad()
    def logits(self, features: Batch, texts: Tensor) -> Tensor:
        texts = texts.to(self.ids.device)
        image = features["features"][0].to(self.qformer.layernorm.weight.dtype)  # [T, C]
        seen: list[tuple[Tensor, Tensor] | None] = []  # of each layer that looks, [1, H, T, D/H]
        for layer in self.layers:
            cross = layer.crossattention.attention if layer.has_cross_attention else None
            seen.append((self._split(cross.key(image[None])), self._split(cross.value(image[None]))) if cross else None)
        logits = torch.empty(len(texts), 2, device=texts.device)
        lengths = self.lengths[texts]
        for length in torch.unique(lengths).tolist():
            rows = (lengths == length).nonzero()[:, 0]
            at_once = max(1, self.tokens_at_once // (self.model.query_tokens.shape[1] + length))
            for some in torch.split(rows, at_once):
                logits[some] = self._read(self.ids[texts[some], :length], seen).float()
        return logits

    def _read(self, ids: Tensor, seen: list[tuple[Tensor, Tensor] | None]) -> Tensor:
        """[K, 2] logits of K texts [K, L] of one length."""
        queries = self.model.query_tokens.shape[1]
        embedded = self.model.embeddings(ids, query_embeds=self.model.query_tokens.expand(len(ids), -1, -1))
        hidden = self.qformer.layernorm(embedded.to(self.qformer.layernorm.weight.dtype))  # [K, Q + L, D]
        for number, layer in enumerate(self.layers):
            last = number == len(self.layers) - 1
            own = layer.attention.attention
            asking = hidden[:, :queries] if last else hidden
            looked = F.scaled_dot_product_attention(
                self._split(own.query(asking)), self._split(own.key(hidden)), self._split(own.value(hidden))
            )
            hidden = layer.attention.output(join_heads(looked), asking)
            about, text = hidden[:, :queries], hidden[:, queries:]
            if (image := seen[number]) is not None:
                # the queries of all texts are one sequence that looks at the image
                asked = self._split(layer.crossattention.attention.query(about).flatten(0, 1)[None])
                looked = F.scaled_dot_product_attention(asked, *image)
                about = layer.crossattention.output(join_heads(looked).view_as(about), about)
            about = layer.feed_forward_chunk_query(about)
            hidden = about if last else torch.cat([about, layer.feed_forward_chunk(text)], 1)
        head = self.model.itm_head
        return head(hidden.to(head.weight.dtype)).mean(1)  # type: ignore[no-any-return]

    def _split(self, hidden: Tensor) -> Tensor:
        return split_heads(hidden, self.heads)
