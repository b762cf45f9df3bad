"""The recipe's ``[model]`` and ``[generate]`` sections. Imports no torch: a recipe is shown and checked at once."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from cutline.core.config import Section
from cutline.core.suggest import nearest

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class ImagePolicy(Section):
    """How an image becomes pixels. Saved with the checkpoint and used from there when it is opened."""

    size: int | None = Field(None, ge=16, description="side of the model's input in px; none: the checkpoint's own")
    fit: Literal["model", "stretch", "crop"] = Field(
        "model",
        description='how an image is fitted to the input: "model": as the checkpoint does; "stretch": resized without '
        'keeping the aspect ratio; "crop": cropped to the largest centred square',
    )
    min_pixels: int | None = Field(
        None, ge=784, description="smallest number of pixels of an image, for models that take native resolution"
    )
    max_pixels: int | None = Field(
        None, ge=784, description="largest number of pixels of an image, for models that take native resolution"
    )
    tiles: int | None = Field(
        None,
        ge=1,
        description="largest number of tiles of an image, including its thumbnail, for models that cut large images "
        "into tiles; 1: the thumbnail only; none: the checkpoint's own",
    )


class ModelSettings(Section):
    checkpoint: str | None = Field(None, description="folder or hub name of the checkpoint to start from")
    family: str | None = Field(
        None,
        description="the model family (`cutline families` lists them); none: read from the checkpoint's config.json",
    )
    new: dict[str, Any] | None = Field(
        None, description="settings of a model to build from scratch instead of opening a checkpoint; see the family"
    )
    prompt: str | None = Field(
        None, description="text before the caption, for families that take one; {context} is replaced by the context"
    )
    image: ImagePolicy = ImagePolicy()
    dtype: Dtype = Field(
        "auto", description="dtype of the weights; auto: bfloat16 on a GPU that supports it, otherwise float32"
    )
    device: str = Field("auto", description='device to run on: "auto", "cpu", "cuda", "cuda:1", "mps"')
    quantize: Literal["auto", "none", "nf4", "int8"] = Field(
        "auto",
        description='quantisation of the language model: 4 bits ("nf4") or 8 bits ("int8"), the rest stays in dtype; '
        '"auto": as a checkpoint with adapters was trained, otherwise none',
    )
    double_quantize: bool = Field(True, description="quantise the scales of NF4, too; saves 0.4 bits per weight")
    compute_dtype: Dtype = Field(
        "auto",
        description="dtype in which NF4 matrices are multiplied; auto: dtype, but float16 on a GPU without bfloat16",
    )

    @field_validator("prompt")
    @classmethod
    def _known_placeholders(cls, prompt: str | None) -> str | None:
        for name in re.findall(r"\{\s*(\w+)\s*\}", prompt or ""):
            if "{context}" not in str(prompt) or name != "context":
                near = nearest(name.lower(), ["context"])
                hint = "; did you mean {context}?" if near else "; only {context} is replaced"
                raise ValueError(f"{{{name}}} in the prompt is not a known placeholder{hint}")
        return prompt

    @model_validator(mode="after")
    def _one_origin(self) -> ModelSettings:
        if self.new is not None and self.checkpoint is not None:
            raise ValueError("[model] has both checkpoint and new; give one of them")
        if self.new is not None and self.family is None:
            raise ValueError("[model.new] needs [model] family: there is no config.json to read it from")
        if self.new is None and self.checkpoint is None:
            raise ValueError("[model] needs checkpoint = … (to open one) or a [model.new] section (to build one)")
        if self.new is not None and self.quantize in ("nf4", "int8"):
            raise ValueError("a new model ([model.new]) can't be quantised; only a checkpoint can")
        return self


class LoraSettings(Section):
    """``[train.lora]``: adapters of the parts that are set to "lora" in ``[train.parts]``."""

    r: int = Field(16, ge=1, description="rank of the adapters")
    alpha: float = Field(32, gt=0, description="scaling: adapters are multiplied by alpha / r")
    dropout: float = Field(0.05, ge=0, lt=1, description="dropout on the input of the adapters")
    targets: list[str] | Literal["all-linear"] = Field(
        "all-linear",
        description='endings of module names, for example ["q_proj", "v_proj"], within the parts set to "lora"; '
        '"all-linear": every linear layer of these parts',
    )
    rslora: bool = Field(False, description="scale by alpha / √r instead (rank-stabilised LoRA), better for high ranks")
    dora: bool = Field(
        False,
        description="train the magnitude of each matrix separately from its direction (DoRA); slower, often better",
    )


class GenerateSettings(Section):
    """How captions are generated. Saved with the checkpoint and used from there unless overridden."""

    max_new_tokens: int = Field(40, ge=1, description="longest caption, in new tokens, including the end token")
    min_new_tokens: int = Field(0, ge=0, description="shortest caption, in new tokens")
    min_words: int = Field(0, ge=0, description="shortest caption, in words; 0: any")
    max_words: int = Field(0, ge=0, description="longest caption, in words; 0: any")
    prefix: str = Field("", description="words that every caption starts with; they are part of the caption")
    num_beams: int = Field(1, ge=1, description="beams of the beam search; 1: greedy, or sampling if do_sample = true")
    length_penalty: float = Field(1.0, description="beam scores are divided by length ** length_penalty")
    do_sample: bool = Field(False, description="sample from the distribution instead of taking the best token")
    temperature: float = Field(1.0, gt=0, description="temperature of sampling")
    top_p: float = Field(
        1.0, gt=0, le=1, description="sample from the smallest set of tokens with this total probability"
    )
    top_k: int = Field(0, ge=0, description="sample from the k most likely tokens; 0: all")
    no_repeat_ngram_size: int = Field(
        0, ge=0, description="n-grams of this many tokens occur at most once in a caption; 0: no limit"
    )
    repetition_penalty: float = Field(
        1.0, gt=0, description="penalty for tokens that the caption already contains; 1: none"
    )
    batch_size: int = Field(16, ge=1, description="images per batch; halved automatically when memory runs out")
    seed: int = Field(0, description="seed of sampling")
    split: str = Field("auto", description='the split to caption; "auto": test where there is one, else val')

    @model_validator(mode="after")
    def _bounds(self) -> GenerateSettings:
        if self.max_words and self.min_words > self.max_words:
            raise ValueError(f"min_words = {self.min_words} is above max_words = {self.max_words}")
        return self

    def over(self, kept: GenerateSettings) -> GenerateSettings:
        """The keys that are set here, with a checkpoint's own settings for all others."""
        given = {key: value for key, value in self if key in self.model_fields_set or key in _ASIDE}
        return kept.model_copy(update=given)

    def unlike(self, kept: GenerateSettings) -> str:
        """The settings that differ from a checkpoint's own, as text; "" if none does."""
        differences = [
            f"{key} = {value!r} (checkpoint: {getattr(kept, key)!r})"
            for key, value in self
            if key not in _ASIDE and value != getattr(kept, key)
        ]
        return ", ".join(differences)


#: Keys of [generate] that choose images and batches; captions don't depend on them (with sampling, on the seed).
_ASIDE = frozenset({"batch_size", "seed", "split"})


class GenerateRecipe(Section):
    """The part of a recipe that captioning with a checkpoint needs."""

    generate: GenerateSettings
