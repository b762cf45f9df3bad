"""Any vision tower and any causal language model joined by a trained projector (ViT + Llama, MobileNet + a small one).

The model is our own, in ``models/vision_prefix.py``: what the projector makes of the tower's cells stands as tokens in
front of the prompt, after Frozen (Tsimpoukelli et al. 2021) and LLaVA-1.5 (Liu et al. 2023). Where the language model's
tokenizer has a chat template, the image and the prompt are a user's turn and the caption is the answer. A new projector
says nothing that the language model understands: train it alone first (``[train.align]``), then open the rest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from cutline.core import hub
from cutline.core.config import parse
from cutline.core.errors import CheckpointError
from cutline.families.base import Batch
from cutline.families.common.chat import ChatFamily, around_answer
from cutline.families.common.from_scratch import (
    SmallHalves,
    caption_vocabulary,
    require_captions,
    small_gpt2,
    special_ids,
)
from cutline.families.common.tiny import example_texts
from cutline.families.models.tower import build_tower, cells_of, open_tower
from cutline.families.models.vision_prefix import VisionPrefixConfig, VisionPrefixForConditionalGeneration

#: The placeholder of the image in a prompt.
IMAGE = "<image>"

#: The date that Llama's template writes; otherwise the prompt would change every day.
_DATE = "26 Jul 2024"

# The miniature's chat template; checkpoints have their own.
_TEMPLATE = (
    "<bos>{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}<eos>\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


class New(SmallHalves):
    """``[model.new]``: two checkpoints to join, or sizes of halves from scratch."""

    vision: str | None = Field(
        None, description="folder or hub name of the vision checkpoint; none: a ViT from scratch"
    )
    text: str | None = Field(
        None, description="folder or hub name of the causal language model; none: a GPT-2 from scratch"
    )
    projector: Literal["mlp", "linear"] = Field("mlp", description="two layers with a GELU between them, or one layer")
    projector_size: int | None = Field(
        None, ge=1, description="width between the two layers; none: the language model's"
    )
    merge: int = Field(1, ge=1, description="merge × merge neighbouring cells become one token")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the tower's features")
    text_dropout: float = Field(0.0, ge=0, lt=1, description="dropout of a GPT-2 from scratch")
    max_position_embeddings: int = Field(
        512, ge=16, description="number of positions of a GPT-2 from scratch, for image tokens and text"
    )
    vocabulary: Literal["words", "bpe"] = Field(
        "bpe", description="tokens of a GPT-2 from scratch: whole words of the training captions, or byte-level pieces"
    )
    vocabulary_size: int = Field(2000, ge=8, description="largest number of tokens of a vocabulary from scratch")
    min_count: int = Field(
        5, ge=1, description="with words: those that occur less often in the training captions become <unk>"
    )
    lowercase: bool = Field(True, description="with words: write them in lower case")


class VisionPrefix(ChatFamily):
    architecture = VisionPrefixForConditionalGeneration
    unused = r"vision_tower\..*(?:pooler\.|mask_token)"

    def __init__(self, model: Any, image_processor: Any, tokenizer: Any, prompt: str | None = None):
        super().__init__(model, image_processor, tokenizer, prompt)
        output = model.get_output_embeddings()
        head = next(name for name, module in model.named_modules() if module is output)
        self._parts = {
            "vision": r"vision_tower\.(?:\D*\.(?P<layer>\d+)\.)?",
            "bridge": r"projector\.",
            "head": head.replace(".", r"\.") + r"\.",
            "text": r"language_model\.(?:\D*\.(?P<layer>\d+)\.)?",
        }
        self._cells: dict[tuple[int, int], int] = {}

    @property
    def parts(self) -> Mapping[str, str]:
        return self._parts

    @classmethod
    def _new(cls, settings: Mapping[str, Any], captions: Sequence[str]) -> Self:
        sizes = parse(dict(settings), New, where="[model.new]")
        if sizes.vision is not None:
            tower, image_processor = open_tower(sizes.vision)
        else:
            tower, image_processor = _small_tower(sizes)
        if sizes.text is not None:
            language_model, tokenizer = _open_text(sizes.text)
        else:
            require_captions(captions, "A new language model")
            tokenizer = _small_vocabulary(sizes, captions)
            language_model = _gpt2(sizes, tokenizer)
        # a language model from scratch can't understand a prompt
        return cls.join(tower, image_processor, language_model, tokenizer, sizes, None if sizes.text else "")

    @classmethod
    def config_of_new(cls, new: Mapping[str, Any], config_of: Callable[[str], Any]) -> Any:
        sizes = parse(dict(new), New, where="[model.new]")
        if sizes.vision is None or sizes.text is None:
            return super().config_of_new(new, config_of)
        return VisionPrefixConfig(
            vision_config=config_of(sizes.vision),
            text_config=config_of(sizes.text),
            projector=sizes.projector,
            projector_size=sizes.projector_size,
            merge=sizes.merge,
        )

    @classmethod
    def join(
        cls, tower: Any, image_processor: Any, language_model: Any, tokenizer: Any, sizes: New, prompt: str | None
    ) -> Self:
        """Joins a vision tower and a language model, and adds the image's token to the tokenizer."""
        tokenizer.add_special_tokens({"extra_special_tokens": [IMAGE]}, replace_extra_special_tokens=False)
        image_token = int(tokenizer.convert_tokens_to_ids(IMAGE))
        model = VisionPrefixForConditionalGeneration.join(
            tower,
            language_model,
            projector=sizes.projector,
            projector_size=sizes.projector_size,
            merge=sizes.merge,
            dropout=sizes.dropout,
            image_token_id=image_token,
        )
        never = {image_token, tokenizer.unk_token_id} if sizes.text is None else {image_token}
        never &= set(range(language_model.config.vocab_size))  # the image's token may be beyond the vocabulary
        if never:
            kept = model.generation_config.suppress_tokens or []
            model.generation_config.suppress_tokens = sorted({*kept, *never})
        return cls(model, image_processor, tokenizer, prompt)

    @classmethod
    def _tiny(cls, captions: Sequence[str]) -> Self:
        return cls._tiny_new({"vision": "a ViT", "text": "a Llama"}, captions)

    @classmethod
    def _tiny_new(cls, new: Mapping[str, Any], captions: Sequence[str]) -> Self:
        asked = parse(dict(new), New, where="[model.new]")
        small = {"image_size": 64, "patch_size": 16, "vision_layers": 2, "vision_width": 32, "text_layers": 2,
                 "text_width": 64, "heads": 4, "vocabulary_size": 420, "min_count": 1}  # fmt: skip
        sizes = asked.model_copy(update=small | {"projector_size": None, "dropout": 0.0, "text_dropout": 0.0})
        tower, image_processor = _small_tower(sizes)
        tokenizer = _small_vocabulary(sizes, captions or example_texts())
        if asked.text is not None:
            tokenizer.chat_template = _TEMPLATE
        language_model = (_small_llama if asked.text is not None else _gpt2)(sizes, tokenizer)
        return cls.join(tower, image_processor, language_model, tokenizer, sizes, None if asked.text else "")

    # ---- text

    @property
    def image_token_id(self) -> int:
        return int(self.model.config.image_token_id)

    def render(self, prompt: str) -> str:
        if self.tokenizer.chat_template is None:
            return f"{self.tokenizer.bos_token or ''}{IMAGE}" + (f"\n{prompt}\n" if prompt else "")
        return self._chat([_turn(prompt)], True)

    def _chat(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        rendered = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt, date_string=_DATE
        )
        return str(rendered)

    @functools.cached_property
    def _around_answer(self) -> tuple[str, str]:
        if self.tokenizer.chat_template is None:
            return "", ""
        return around_answer(self._chat, [_turn("-")], lambda text: {"role": "assistant", "content": text})

    @property
    def answer_start(self) -> str:
        return self._around_answer[0]

    @property
    def trained_end_id(self) -> int:
        after = self.tokenizer(self._around_answer[1], add_special_tokens=False)["input_ids"]
        return int(after[0]) if after and after[0] in self.tokenizer.all_special_ids else super().trained_end_id

    def image_tokens(self, visual: Batch) -> list[int]:
        if "features" in visual:
            images, cells = visual["features"].shape[:2]
        else:
            images, _, height, width = visual["pixel_values"].shape
            cells = self._cells_of(height, width)
        return [self.model.projector.tokens(cells)] * images

    def _cells_of(self, height: int, width: int) -> int:
        if (height, width) not in self._cells:
            try:
                self._cells[height, width] = cells_of(self.model.vision_tower, height, width)[0]
            except ValueError as error:
                raise CheckpointError(
                    f"The vision tower can't take images of {height} × {width} px: {error}",
                    "Set another [model.image] size.",
                ) from error
        return self._cells[height, width]

    # ---- images and language model

    def encode_images(self, batch: Batch) -> Batch:
        # channels last: convolutions on a CPU take a fifth to a third less time
        pixels = batch["pixel_values"].to(self.device, self.dtype, memory_format=torch.channels_last)
        return {"features": self.model.encode_images(pixels)}

    def plain_inputs(self, batch: Batch) -> dict[str, object]:
        return {name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values", "rows")}

    def hidden_states(self, batch: Batch) -> Tensor:
        features = self.with_image_features(batch)["features"]
        return self.model.read(batch["input_ids"], features, batch["rows"], batch["attention_mask"])  # type: ignore[no-any-return]

    def lm_head(self, hidden: Tensor) -> Tensor:
        return self.model.logits(hidden)  # type: ignore[no-any-return]

    def generation_inputs(self, batch: Batch) -> dict[str, object]:
        features = self.with_image_features(batch)["features"]
        embeds = self.model.embed(batch["input_ids"], features, batch["rows"])
        return {"inputs_embeds": embeds, "attention_mask": batch["attention_mask"]}

    def returned_prompt_length(self, batch: Batch) -> int:
        return 0  # generated from embeddings, so no prompt comes back


def _turn(prompt: str) -> dict[str, str]:
    return {"role": "user", "content": f"{IMAGE}\n{prompt}"}


def _small_tower(sizes: New) -> tuple[Any, Any]:
    config, image_processor = sizes.vit()
    return build_tower(config), image_processor


def _small_vocabulary(sizes: New, captions: Sequence[str]) -> PreTrainedTokenizerFast:
    return caption_vocabulary(
        captions, sizes.vocabulary, size=sizes.vocabulary_size, min_count=sizes.min_count, lowercase=sizes.lowercase
    )


def _gpt2(sizes: New, tokenizer: PreTrainedTokenizerFast) -> Any:
    return small_gpt2(
        tokenizer,
        width=sizes.text_width,
        layers=sizes.text_layers,
        heads=sizes.heads,
        positions=sizes.max_position_embeddings,
        dropout=sizes.text_dropout,
    )


def _small_llama(sizes: New, tokenizer: PreTrainedTokenizerFast) -> Any:
    """For rehearsals: its modules have the names that recipes for Llama use."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=sizes.text_width,
        intermediate_size=4 * sizes.text_width,
        num_hidden_layers=sizes.text_layers,
        num_attention_heads=sizes.heads,
        tie_word_embeddings=True,
        **special_ids(tokenizer),
    )
    return LlamaForCausalLM(config)


def _open_text(checkpoint: str) -> tuple[Any, Any]:
    try:
        source = hub.resolve(checkpoint)
        model = AutoModelForCausalLM.from_pretrained(source)
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"[model.new] text = {checkpoint!r} could not be opened: {str(error).splitlines()[0]}",
            "Give the folder of a causal language model, or its name on the hub; gated ones need `hf auth login`.",
        ) from error
    if tokenizer.eos_token_id is None:
        raise CheckpointError(
            f"[model.new] text = {checkpoint!r} has no end token, so no caption could end.", "Use another checkpoint."
        )
    return model, tokenizer
