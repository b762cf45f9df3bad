"""The roles that BLIP gives one text transformer: writing captions, and reading texts alone or with an image.

Source: Li et al. 2022, arXiv:2201.12086; the evaluation of the authors' code for retrieval. The model's modules have
Hugging Face's names for them: ``text_encoder``, ``text_decoder``, ``vision_proj``, ``text_proj``, ``itm_head``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cutline.families.base import Batch, Family
from cutline.families.common.blip_texts import clean
from cutline.families.common.chat import ChatFamily
from cutline.families.common.matching import WholeMatching, join_heads, split_heads
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

    tasks = frozenset({"caption"})

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
            "encoder_hidden_states": self.memory(self.with_image_features(batch)["features"])[batch["rows"]],
        }

    def hidden_states(self, batch: Batch) -> Tensor:
        decoder = self.model.text_decoder.bert
        return decoder(**self._inputs(batch), is_decoder=True, use_cache=False).last_hidden_state  # type: ignore[no-any-return]

    def generation_inputs(self, batch: Batch) -> dict[str, object]:
        inputs = self._inputs(batch)
        seen = inputs["encoder_hidden_states"]
        return inputs | {"encoder_attention_mask": torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device)}

    def lm_head(self, hidden: Tensor) -> Tensor:
        return self.model.text_decoder.cls(hidden)  # type: ignore[no-any-return]


class BlipReader(BlipRole, RetrievalFamily):
    """Contrast (ITC) by the first position of image and text, each by itself; matching (ITM) by the text that has
    looked at the image."""

    tasks = frozenset({"embed", "match"})
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
        return unit(self.model.vision_proj(self.with_image_features(batch)["features"][:, 0]))

    def embed_texts(self, texts: Batch) -> Tensor:
        hidden = self.model.text_encoder(**texts).last_hidden_state
        return unit(self.model.text_proj(hidden[:, 0]))

    def match_logits(self, features: Batch, texts: Batch, images: Tensor) -> Tensor:
        ids = texts["input_ids"].clone()
        ids[:, 0] = self.match_start_id
        some, places = torch.unique(images, return_inverse=True)  # images that no text asks for cost nothing
        seen = self.memory(self.with_image_features(features)["features"][some])[places]
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


class _Group(NamedTuple):
    """Texts of one length, one behind the other: rows ``start`` to ``start + texts · length``."""

    start: int
    texts: int
    length: int


class BlipMatching(WholeMatching):
    """BLIP's image–text matching for many texts of one image, without computing anything twice.

    The function is that of ``BlipForImageTextRetrieval`` with [ENC] in front; only the order differs. The keys and
    values of the image's 577 positions are computed once per image instead of once per text, in every layer. Texts are
    not padded: all tokens of all texts are one sequence of queries to the image, and they attend to each other in
    groups of texts of equal length. The last layer computes only the row that is read. What the first layer says
    before it looks at the image is kept for each text.

    S: tokens of several texts in a row, D: width, H: heads, T: positions of the image."""

    def __init__(self, family: BlipReader, texts: Sequence[str], tokens_at_once: int = 1024, keep_bytes: int = 2**30):
        """Prepares M texts.

        Args:
            family: a matcher, or a mixture; its dtype and device are used.
            texts: M texts, as people wrote them.
            tokens_at_once: how many tokens of texts look at an image in one go; bounds the memory.
            keep_bytes: what the first layer says of the texts is kept if it takes no more than this (350 thousand
                tokens of BLIP-base in float32), else computed again for each image.
        """
        assert not family.training
        self.memory = family.memory
        self.encoder, self.itm_head = family.model.text_encoder, family.model.itm_head
        self.layers: list[Any] = list(self.encoder.encoder.layer)
        self.heads = family.model.config.text_config.num_attention_heads
        self.tokens_at_once = tokens_at_once
        rows = family.match_ids(texts)
        order = sorted(range(len(rows)), key=lambda text: len(rows[text]))
        self.lengths = torch.tensor([len(rows[text]) for text in order], dtype=torch.int64)
        self.starts = self.lengths.cumsum(0) - self.lengths
        self.place = torch.empty(len(rows), dtype=torch.int64)  # text → its place in the order of lengths
        self.place[torch.tensor(order, dtype=torch.int64)] = torch.arange(len(rows))
        self.ids = torch.tensor([token for text in order for token in rows[text]], device=family.device)  # [all S]
        self.first: Tensor | None = None  # [all S, D]
        if len(self.ids) * self.encoder.config.hidden_size * family.dtype.itemsize <= keep_bytes:
            pieces = [torch.arange(first, last) for first, last in self._pieces(self.lengths)]
            self.first = torch.cat([self._first_layer(places) for places in pieces]) if pieces else None

    def _tokens(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Of texts in ascending order: which of all tokens are theirs [S], and each one's position in its text [S]."""
        lengths = self.lengths[places]
        within = torch.arange(int(lengths.sum())) - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        tokens = self.starts[places].repeat_interleave(lengths) + within
        return tokens.to(self.ids.device), within.to(self.ids.device)

    @torch.no_grad()
    def _first_layer(self, places: Tensor) -> Tensor:
        """[S, D]: embeddings and the first layer's self-attention, which no image has a part in."""
        tokens, positions = self._tokens(places)
        embedded = self.encoder.embeddings(input_ids=self.ids[None, tokens], position_ids=positions[None])[0]
        return self._self_attention(self.layers[0], embedded, _groups(self.lengths[places]))

    def _pieces(self, lengths: Tensor) -> list[tuple[int, int]]:
        """Ranges of texts with at most ``tokens_at_once`` tokens (or one text) in each."""
        pieces, first, tokens = [], 0, 0
        for text, length in enumerate(lengths.tolist()):
            if text > first and tokens + length > self.tokens_at_once:
                pieces.append((first, text))
                first, tokens = text, 0
            tokens += length
        return [*pieces, (first, len(lengths))] if len(lengths) else []

    @torch.no_grad()
    def logits(self, features: Batch, texts: Tensor) -> Tensor:
        image = self.memory(features["features"])[0]  # [T, C]
        # of every layer, [1, H, T, D/H]
        keys = [self._split(layer.crossattention.self.key(image))[None] for layer in self.layers]
        values = [self._split(layer.crossattention.self.value(image))[None] for layer in self.layers]
        places, back = self.place[texts.cpu()].sort()
        found = [self._read(places[first:last], keys, values) for first, last in self._pieces(self.lengths[places])]
        logits = torch.cat(found) if found else image.new_zeros(0, 2)
        ordered = torch.empty_like(logits)
        ordered[back.to(logits.device)] = logits
        return ordered

    def _read(self, places: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        """[K, 2] logits of texts, given by their places in ascending order, with the image of these keys and values."""
        groups = _groups(self.lengths[places])
        hidden = self._first_layer(places) if self.first is None else self.first[self._tokens(places)[0]]  # [S, D]
        for number, layer in enumerate(self.layers):
            last = number == len(self.layers) - 1
            if number:
                hidden = self._self_attention(layer, hidden, groups, first_only=last)
            elif last:  # a model of one layer
                hidden = hidden[_firsts(groups, hidden.device)]
            cross = layer.crossattention
            queries = self._split(cross.self.query(hidden))[None]  # [1, H, S, D/H]
            looked = F.scaled_dot_product_attention(queries, keys[number], values[number])[0]
            hidden = layer.feed_forward_chunk(cross.output(join_heads(looked), hidden))
        return self.itm_head(hidden)  # type: ignore[no-any-return]

    def _self_attention(self, layer: Any, hidden: Tensor, groups: list[_Group], first_only: bool = False) -> Tensor:
        """[S, D] → [S, D], or the first rows of the texts [K, D]; each text attends to itself."""
        attention = layer.attention
        kept = hidden[_firsts(groups, hidden.device)] if first_only else hidden
        queries, keys, values = attention.self.query(kept), attention.self.key(hidden), attention.self.value(hidden)
        found, row = [], 0
        for group in groups:
            rows = group.texts * (1 if first_only else group.length)
            span = slice(group.start, group.start + group.texts * group.length)
            own = (queries[row : row + rows], keys[span], values[span])
            q, k, v = (self._split(one.view(group.texts, -1, one.shape[-1])) for one in own)  # [texts, H, L, D/H]
            looked = F.scaled_dot_product_attention(q, k, v)
            found.append(join_heads(looked).reshape(rows, -1))
            row += rows
        return attention.output(torch.cat(found), kept)  # type: ignore[no-any-return]

    def _split(self, hidden: Tensor) -> Tensor:
        return split_heads(hidden, self.heads)


def _groups(lengths: Tensor) -> list[_Group]:
    """Runs of equal length among ascending lengths."""
    groups, start = [], 0
    values, counts = torch.unique_consecutive(lengths, return_counts=True)
    for length, count in zip(values.tolist(), counts.tolist(), strict=True):
        groups.append(_Group(start, count, length))
        start += count * length
    return groups


def _firsts(groups: list[_Group], device: torch.device) -> Tensor:
    """The rows where the texts begin."""
    rows = [torch.arange(start, start + count * length, length) for start, count, length in groups]
    return torch.cat(rows).to(device)
