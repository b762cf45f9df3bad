"""BLIP-2: an image tower, a Q-Former with 32 queries, and OPT or Flan-T5; or the Q-Former alone, for retrieval.

Source: Li et al. 2023, arXiv:2301.12597; the code of Hugging Face transformers and of LAVIS. With OPT a caption ends
with a newline, and the prompt begins with </s>, OPT's first token; with Flan-T5 the prompt is the encoder's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2Processor,
    BlipImageProcessorPil,
    GPT2Tokenizer,
    T5Tokenizer,
)

from cutline.core.errors import CheckpointError
from cutline.families.base import Batch, Family
from cutline.families.common.blip_2_matching import Blip2Matching
from cutline.families.common.blip_texts import clean
from cutline.families.common.chat import ChatFamily
from cutline.families.common.matching import WholeMatching
from cutline.families.common.retrieval import RetrievalFamily, unit
from cutline.families.common.seq2seq import Seq2SeqFamily, insert_image_embeddings
from cutline.families.common.tiny import byte_level_bpe, unigram, wordpiece
from cutline.families.weights.quantize import Quantization


class Blip2(Family):
    """Shared code of the three variants; ``open`` and ``tiny`` return the right one."""

    tasks = frozenset({"caption", "embed", "match"})

    @classmethod
    def open(
        cls, checkpoint: str, dtype: torch.dtype = torch.float32, quantization: Quantization | None = None
    ) -> Self:
        config = AutoConfig.from_pretrained(checkpoint)
        names = config.architectures or []
        kind: Any
        if "Blip2ForImageTextRetrieval" in names:
            architecture, kind = Blip2ForImageTextRetrieval, Blip2Matcher
        elif "Blip2ForConditionalGeneration" in names:
            architecture = Blip2ForConditionalGeneration
            kind = Blip2Causal if config.use_decoder_only_language_model else Blip2Seq2Seq
            if config.image_token_index is None:
                raise CheckpointError(
                    f"{checkpoint} is an old version: its config.json lacks image_token_index.",
                    "Download it again from the hub, where this is fixed.",
                )
        else:
            raise CheckpointError(
                f"{checkpoint} isn't a BLIP-2 checkpoint: {', '.join(names) or 'config.json names no class'}.",
                "Use a captioner such as Salesforce/blip2-opt-2.7b, or a matcher such as Salesforce/blip2-itm-vit-g.",
            )
        model = kind.from_pretrained(architecture, checkpoint, dtype, quantization)
        image_processor = BlipImageProcessorPil.from_pretrained(checkpoint)
        return cast(Self, kind(model, image_processor, AutoTokenizer.from_pretrained(checkpoint)))

    @classmethod
    def class_of(cls, config: Any) -> type[Family]:
        return Blip2Causal if config.use_decoder_only_language_model else Blip2Seq2Seq

    @classmethod
    def build(cls, config: Any) -> torch.nn.Module:
        model: Any = Blip2ForConditionalGeneration(config)
        if not config.use_decoder_only_language_model and not config.tie_word_embeddings:
            # T5's configuration always says tied; where a checkpoint has two matrices, loading keeps both
            head = model.language_model.lm_head
            head.weight = torch.nn.Parameter(torch.empty_like(head.weight))
        return cast(torch.nn.Module, model)

    @classmethod
    def variants(cls) -> tuple[type[Family], ...]:
        return tuple(_TOKENIZERS)

    @classmethod
    def _class_for(cls, task: str, checkpoint: str) -> type[Family]:
        if cls is not Blip2:
            return cls
        if task in Blip2Matcher.tasks:
            return Blip2Matcher
        return Blip2Seq2Seq if "t5" in checkpoint.lower() else Blip2Causal

    @classmethod
    def _tiny(cls, captions: Sequence[str]) -> Self:
        return cast(Self, _tiny(cls, captions))

    def save(self, folder: str | Path) -> None:
        queries = self.model.config.num_query_tokens if "caption" in self.tasks else None
        Blip2Processor(self.image_processor, self.tokenizer, queries).save_pretrained(folder)
        super().save(folder)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """The Q-Former overflows in float16, so it and its queries stay in float32 then; they are a small part."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.model.query_tokens.dtype == torch.float16:
            self.model.qformer.float()
            self.model.query_tokens.data = self.model.query_tokens.data.float()
        return self

    def encode_images(self, batch: Batch) -> Batch:
        pixels = batch["pixel_values"].to(self.device, self.dtype)
        return {"features": self.model.vision_model(pixel_values=pixels).last_hidden_state}

    def query_image(self, features: Tensor) -> Tensor:
        """The Q-Former's query outputs: features [N, T, C] → [N, Q, 768]."""
        queries = self.model.query_tokens.expand(len(features), -1, -1)
        return self.model.qformer(query_embeds=queries, encoder_hidden_states=features).last_hidden_state  # type: ignore[no-any-return]


class Blip2Captioner(Blip2, ChatFamily):
    """Shared code of both captioners: the image's tokens, one for each query, stand before the prompt."""

    tasks = frozenset({"caption"})
    default_prompt = "a photo of"

    @property
    def parts(self) -> Mapping[str, str]:
        return {
            "vision": r"vision_model\.(?:encoder\.layers\.(?P<layer>\d+)\.)?",
            "bridge": r"qformer\.(?:encoder\.layer\.(?P<layer>\d+)\.)?",
            "projection": r"query_tokens|language_projection\.",
            "head": r"language_model\.lm_head\.",
            # of an encoder–decoder the decoder's layers are numbered
            "text": r"language_model\.(?:(?:model\.)?decoder\.(?:layers|block)\.(?P<layer>\d+)\.)?",
        }

    @property
    def generator(self) -> Any:
        return self.model.language_model

    @property
    def image_token_id(self) -> int:
        return int(self.model.config.image_token_index)

    def image_tokens(self, visual: Batch) -> list[int]:
        count = len(visual["features"] if "features" in visual else visual["pixel_values"])
        return [int(self.model.config.num_query_tokens)] * count

    def render(self, prompt: str) -> str:
        return prompt

    def _embedded(self, batch: Batch, rows: Tensor | None = None) -> Tensor:
        """Input embeddings [R, L, D] with the projected query outputs of each row's image at its tokens."""
        answers = self.query_image(self.with_image_features(batch)["features"])
        projection = self.model.language_projection
        images = projection(answers.to(projection.weight.dtype))
        ids = batch["input_ids"]
        text = self.model.language_model.get_input_embeddings()(ids)
        return insert_image_embeddings(text, ids == self.image_token_id, images if rows is None else images[rows])

    def lm_head(self, hidden: Tensor) -> Tensor:
        return self.model.language_model.lm_head(hidden)  # type: ignore[no-any-return]


class Blip2Causal(Blip2Captioner):
    """With OPT."""

    answer_start = " "

    @property
    def trained_end_id(self) -> int:
        """The newline, with which BLIP-2's captions end; OPT has no token of its own for it."""
        return int(self.tokenizer("\n", add_special_tokens=False)["input_ids"][-1])

    @property
    def end_ids(self) -> list[int]:
        return [self.trained_end_id, int(self.tokenizer.eos_token_id)]

    def _prompt_ids(self, prompt: str, image_tokens: int) -> list[int]:
        text = self.tokenizer(self.render(prompt), add_special_tokens=False)["input_ids"]
        return [*[self.image_token_id] * image_tokens, int(self.tokenizer.bos_token_id), *text]

    def _caption_ids(self, caption: str) -> list[int]:
        return super()._caption_ids(" ".join(caption.split()))  # a newline inside would end it

    def plain_inputs(self, batch: Batch) -> dict[str, object]:
        return super().plain_inputs(batch) | {"pixel_values": batch["pixel_values"][batch["rows"]]}

    def hidden_states(self, batch: Batch) -> Tensor:
        embedded = self._embedded(batch, batch["rows"])
        text = self.model.language_model.base_model
        return text(  # type: ignore[no-any-return]
            inputs_embeds=embedded, attention_mask=batch["attention_mask"], use_cache=False
        ).last_hidden_state

    def generation_inputs(self, batch: Batch) -> dict[str, object]:
        # with the ids, the output begins with the prompt
        return {"inputs_embeds": self._embedded(batch), **{n: batch[n] for n in ("input_ids", "attention_mask")}}


class Blip2Seq2Seq(Blip2Captioner, Seq2SeqFamily):
    """With Flan-T5."""

    @property
    def decoder_prefix(self) -> list[int]:
        return [int(self.model.language_model.config.decoder_start_token_id)]

    def _prompt_ids(self, prompt: str, image_tokens: int) -> list[int]:
        text = self.tokenizer(self.render(prompt), add_special_tokens=False)["input_ids"]
        return [*[self.image_token_id] * image_tokens, *text, int(self.tokenizer.eos_token_id)]

    def encode_prompts(self, batch: Batch) -> Tensor:
        encoder = self.model.language_model.encoder
        embedded = self._embedded(batch)
        return encoder(inputs_embeds=embedded, attention_mask=batch["attention_mask"]).last_hidden_state  # type: ignore[no-any-return]

    def decode_with_teacher_forcing(self, encoded: Tensor, mask: Tensor, decoder_input_ids: Tensor) -> Tensor:
        return self.model.language_model.decoder(  # type: ignore[no-any-return]
            input_ids=decoder_input_ids,
            attention_mask=torch.ones_like(decoder_input_ids),  # causal: no position reads the padding on its right
            encoder_hidden_states=encoded,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state

    def lm_head(self, hidden: Tensor) -> Tensor:
        config = self.model.language_model.config
        return super().lm_head(hidden * config.d_model**-0.5 if config.scale_decoder_outputs else hidden)


class Blip2Matcher(Blip2, RetrievalFamily):
    """``Blip2ForImageTextRetrieval``: contrast of a text with the best of the image's queries (ITC), and matching
    by the queries that have read the text (ITM)."""

    tasks = frozenset({"embed", "match"})
    #: Words that a text is cut to, in the published evaluation.
    text_words = 50

    @property
    def parts(self) -> Mapping[str, str]:
        layer = r"encoder\.layer\.(?P<layer>\d+)\."
        return {
            "vision": r"vision_model\.(?:encoder\.layers\.(?P<layer>\d+)\.)?",
            "bridge": rf"query_tokens|qformer\.{layer}(?:crossattention|intermediate_query|output_query)\.",
            "text": rf"embeddings\.|qformer\.(?:{layer})?",
            "head": r"vision_projection\.|text_projection\.|itm_head\.",
        }

    @property
    def text_tokens(self) -> int:
        return 35  # in the published evaluation; 32 in its training

    def encode_texts(self, texts: Sequence[str]) -> Batch:
        return self.tokenize([clean(text, self.text_words) for text in texts])

    def embed_images(self, batch: Batch) -> Tensor:
        projection = self.model.vision_projection
        return unit(
            projection(self.query_image(self.with_image_features(batch)["features"]).to(projection.weight.dtype))
        )

    def embed_texts(self, texts: Batch) -> Tensor:
        hidden = self.model.qformer(
            query_embeds=self.model.embeddings(input_ids=texts["input_ids"]),
            query_length=0,
            attention_mask=texts["attention_mask"],
        ).last_hidden_state
        projection = self.model.text_projection
        return unit(projection(hidden[:, 0].to(projection.weight.dtype)))

    def match_logits(self, features: Batch, texts: Batch, images: Tensor) -> Tensor:
        seen = self.with_image_features(features)["features"][images]
        queries = self.model.query_tokens.expand(len(seen), -1, -1)
        mask = texts["attention_mask"]
        hidden = self.model.qformer(
            query_embeds=self.model.embeddings(input_ids=texts["input_ids"], query_embeds=queries),
            query_length=queries.shape[1],
            attention_mask=torch.cat([mask.new_ones(queries.shape[:2]), mask], 1),
            encoder_hidden_states=seen,
        ).last_hidden_state
        head = self.model.itm_head
        return head(hidden[:, : queries.shape[1]].to(head.weight.dtype)).mean(1)  # type: ignore[no-any-return]

    def matching(self, texts: Sequence[str]) -> WholeMatching:
        return Blip2Matching(self, texts)


def _tiny(kind: Any, captions: Sequence[str]) -> Any:
    queries, side = 4, {"height": 48, "width": 48}
    tokenizer = _TOKENIZERS[kind](captions)
    processor = Blip2Processor(
        BlipImageProcessorPil(size=side), tokenizer, None if kind is Blip2Matcher else queries
    )  # adds <image>
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    qformer = {
        "vocab_size": len(tokenizer),
        "cross_attention_frequency": 1,
        "use_qformer_text_input": kind is Blip2Matcher,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    text = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if kind is Blip2Seq2Seq:
        layers = {"num_layers": 2, "num_heads": 4, "d_model": 64, "d_kv": 16, "d_ff": 128, "dropout_rate": 0.0}
        flan = {"feed_forward_proj": "gated-gelu", "decoder_start_token_id": tokenizer.pad_token_id}
        text |= {"model_type": "t5", "tie_word_embeddings": False, **layers, **flan}
    else:
        layers = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64, "ffn_dim": 128}
        text |= {
            "model_type": "opt",
            "word_embed_proj_dim": 64,
            "max_position_embeddings": 256,
            "dropout": 0.0,
            **layers,
        }
    config = Blip2Config(
        # the default deviation, 1e-10, is for weights that are loaded
        vision_config=sizes | {"image_size": 48, "patch_size": 8, "initializer_range": 0.02},
        qformer_config=sizes | qformer,
        text_config=text,
        num_query_tokens=queries,
        image_token_index=None if kind is Blip2Matcher else tokenizer.convert_tokens_to_ids("<image>"),
        image_text_hidden_size=16,
    )
    model = (Blip2ForImageTextRetrieval if kind is Blip2Matcher else Blip2ForConditionalGeneration)(config)
    torch.nn.init.normal_(model.query_tokens, std=0.02)  # zero for weights that are loaded
    return kind(model, processor.image_processor, tokenizer)


def _opt_tokenizer(captions: Sequence[str]) -> Any:
    vocab, merges = byte_level_bpe(captions)
    return GPT2Tokenizer(
        vocab={**vocab, "</s>": len(vocab), "<pad>": len(vocab) + 1},
        merges=merges,
        bos_token="</s>",
        eos_token="</s>",
        unk_token="</s>",
        pad_token="<pad>",
    )


_TOKENIZERS: Mapping[Any, Callable[[Sequence[str]], Any]] = {
    Blip2Causal: _opt_tokenizer,
    Blip2Seq2Seq: lambda captions: T5Tokenizer(vocab=unigram(captions), extra_ids=0),
    Blip2Matcher: lambda captions: BertTokenizer(vocab=wordpiece(captions), do_lower_case=True, bos_token="[DEC]"),
}
