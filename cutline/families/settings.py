"""The recipe's ``[model]`` and ``[generate]`` sections. Imports no torch: a recipe is shown and checked at once."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from cutline.recipe import Section

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class ImagePolicy(Section):
    """How a photograph becomes pixels; saved with the checkpoint and used again from there."""

    size: int | None = Field(None, ge=16, description="side of the model's input in px; none: as the checkpoint says")
    fit: Literal["model", "squash", "crop"] = Field(
        "model",
        description='"model": as the checkpoint says; "squash": the whole picture, its aspect changed; '
        '"crop": the largest centred square',
    )
    min_pixels: int | None = Field(None, ge=784, description="smallest image in px², for models of native resolution")
    max_pixels: int | None = Field(None, ge=784, description="largest image in px², for models of native resolution")


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

    @model_validator(mode="after")
    def _one_origin(self) -> ModelSettings:
        if self.new is not None and self.checkpoint is not None:
            raise ValueError("[model] has both checkpoint and new; a model is either opened or built")
        if self.new is not None and self.family is None:
            raise ValueError("[model.new] needs [model] family, since there is no config.json to read it from")
        if self.new is None and self.checkpoint is None:
            raise ValueError("[model] needs checkpoint = … (to open one) or a [model.new] section (to build one)")
        return self


class GenerateSettings(Section):
    """How captions are generated; saved with the checkpoint and used from there unless overridden."""

    max_tokens: int = Field(40, ge=1, description="longest caption, in new tokens, the end token included")
    min_tokens: int = Field(0, ge=0, description="shortest caption, in new tokens")
    beams: int = Field(1, ge=1, description="beams of the beam search; 1: greedy, or sampling when sample = true")
    length_penalty: float = Field(1.0, description="exponent of the length that beam scores are divided by")
    sample: bool = Field(False, description="draw from the distribution instead of taking the best")
    temperature: float = Field(1.0, gt=0, description="of the sampling distribution")
    top_p: float = Field(1.0, gt=0, le=1, description="sample from the smallest set with this probability")
    top_k: int = Field(0, ge=0, description="sample from the k best tokens; 0: all")
    no_repeat_ngram: int = Field(0, ge=0, description="no n-gram of this many tokens twice in a caption; 0: allowed")
    repetition_penalty: float = Field(1.0, gt=0, description="divides the scores of tokens already said; 1: none")
    batch_size: int = Field(16, ge=1, description="images at a time; halved by itself when the memory is full")
    seed: int = Field(0, description="of sampling")
    split: str = Field("auto", description='the split to caption; "auto": test where there is one, else val')
