"""The recipe's ``[model]`` and ``[generate]`` sections. Imports no torch: a recipe is shown and checked at once."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from cutline.core.config import Section
from cutline.core.suggest import nearest

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class ImagePolicy(Section):
    """How a photograph becomes pixels; saved with the checkpoint and used again from there."""

    size: int | None = Field(None, ge=16, description="side of the model's input in px; none: as the checkpoint says")
    fit: Literal["model", "stretch", "crop"] = Field(
        "model",
        description='"model": as the checkpoint says; "stretch": the whole picture, its aspect changed; '
        '"crop": the largest centred square',
    )
    min_pixels: int | None = Field(None, ge=784, description="smallest image in px², for models of native resolution")
    max_pixels: int | None = Field(None, ge=784, description="largest image in px², for models of native resolution")
    tiles: int | None = Field(
        None,
        ge=1,
        description="most tiles that an image is cut into, the small whole image included, for models that cut large "
        "images; 1: the whole image only; none: as the checkpoint says",
    )


class ModelSettings(Section):
    checkpoint: str | None = Field(None, description="folder or hub name of the checkpoint to start from")
    family: str | None = Field(
        None,
        description="the model family, a file in cutline/families; read from the checkpoint's config.json when absent",
    )
    new: dict[str, Any] | None = Field(
        None, description="sizes of a model to build from scratch instead of opening a checkpoint (see the family)"
    )
    prompt: str | None = Field(
        None, description="text before the caption, for families that take one; {context} stands for the context"
    )
    image: ImagePolicy = ImagePolicy()
    dtype: Dtype = Field("auto", description="auto: bfloat16 on a GPU that has it, float32 otherwise")
    device: str = Field("auto", description='"auto", "cpu", "cuda", "cuda:1", "mps"')
    quantize: Literal["auto", "none", "nf4", "int8"] = Field(
        "auto",
        description='the language model in 4 ("nf4") or 8 bits, everything else as dtype says; "auto": as a checkpoint '
        "with adapters was trained, else not",
    )
    double_quantize: bool = Field(True, description="quantise NF4's scales, too: 0.4 bits a weight less")
    compute_dtype: Dtype = Field(
        "auto", description="what NF4 matrices are multiplied in; auto: as dtype, but float16 on a GPU without bfloat16"
    )

    @field_validator("prompt")
    @classmethod
    def _known_places(cls, prompt: str | None) -> str | None:
        for name in re.findall(r"\{\s*(\w+)\s*\}", prompt or ""):
            if "{context}" not in str(prompt) or name != "context":
                near = nearest(name.lower(), ["context"])
                hint = "; did you mean {context}?" if near else "; only {context} is filled in"
                raise ValueError(f"{{{name}}} in the prompt would stay as it is{hint}")
        return prompt

    @model_validator(mode="after")
    def _one_origin(self) -> ModelSettings:
        if self.new is not None and self.checkpoint is not None:
            raise ValueError("[model] has both checkpoint and new; a model is either opened or built")
        if self.new is not None and self.family is None:
            raise ValueError("[model.new] needs [model] family, since there is no config.json to read it from")
        if self.new is None and self.checkpoint is None:
            raise ValueError("[model] needs checkpoint = … (to open one) or a [model.new] section (to build one)")
        if self.new is not None and self.quantize in ("nf4", "int8"):
            raise ValueError("a [model.new] can't be quantised, only a checkpoint can")
        return self


class LoraSettings(Section):
    """``[train.lora]``: the adapters of the parts that ``[train.parts]`` calls "lora"."""

    r: int = Field(16, ge=1, description="rank")
    alpha: float = Field(32, gt=0, description="adapters are scaled by alpha / r")
    dropout: float = Field(0.05, ge=0, lt=1, description="of what goes into an adapter")
    targets: list[str] | Literal["all-linear"] = Field(
        "all-linear",
        description='endings of module names, for example ["q_proj", "v_proj"], looked for in the parts called "lora" '
        'and nowhere else; "all-linear": every linear layer of these parts',
    )
    rslora: bool = Field(False, description="scale by alpha / √r instead, which suits high ranks")
    dora: bool = Field(False, description="train each matrix's magnitudes beside its direction; slower, often better")


class GenerateSettings(Section):
    """How captions are generated; saved with the checkpoint and used from there unless overridden."""

    max_new_tokens: int = Field(40, ge=1, description="longest caption, in new tokens, including the end token")
    min_new_tokens: int = Field(0, ge=0, description="shortest caption, in new tokens")
    min_words: int = Field(0, ge=0, description="shortest caption, in words; 0: any")
    max_words: int = Field(0, ge=0, description="longest caption, in words, the last one finished; 0: any")
    prefix: str = Field("", description="words that every caption starts with; they are part of the caption")
    num_beams: int = Field(1, ge=1, description="beams of the beam search; 1: greedy, or sampling if do_sample = true")
    length_penalty: float = Field(1.0, description="exponent of the length that beam scores are divided by")
    do_sample: bool = Field(False, description="sample from the distribution instead of taking the best token")
    temperature: float = Field(1.0, gt=0, description="of the sampling distribution")
    top_p: float = Field(1.0, gt=0, le=1, description="sample from the smallest set with this probability")
    top_k: int = Field(0, ge=0, description="sample from the k best tokens; 0: all")
    no_repeat_ngram_size: int = Field(
        0, ge=0, description="no n-gram of this many tokens twice in a caption; 0: allowed"
    )
    repetition_penalty: float = Field(1.0, gt=0, description="divides the scores of tokens already said; 1: none")
    batch_size: int = Field(16, ge=1, description="images at a time; halved by itself when the memory is full")
    seed: int = Field(0, description="of sampling")
    split: str = Field("auto", description='the split to caption; "auto": test where there is one, else val')

    @model_validator(mode="after")
    def _bounds(self) -> GenerateSettings:
        if self.max_words and self.min_words > self.max_words:
            raise ValueError(f"min_words = {self.min_words} is above max_words = {self.max_words}")
        return self

    def over(self, kept: GenerateSettings) -> GenerateSettings:
        """What was said here, and what a checkpoint keeps for the rest."""
        said = {key: value for key, value in self if key in self.model_fields_set or key in _ASIDE}
        return kept.model_copy(update=said)

    def unlike(self, kept: GenerateSettings) -> str:
        """Where these settings are others than a checkpoint keeps, in words; "" where nowhere."""
        found = [f"{key} = {mine!r} (kept: {getattr(kept, key)!r})" for key, mine in self
                 if key not in _ASIDE and mine != getattr(kept, key)]  # fmt: skip
        return ", ".join(found)


#: Keys of [generate] that say which images, and how many at a time.
_ASIDE = frozenset({"batch_size", "seed", "split"})


class GenerateRecipe(Section):
    """The part of a recipe that captioning with a checkpoint needs."""

    generate: GenerateSettings
