"""The recipe's ``[bootstrap]`` section. Imports no torch."""

from __future__ import annotations

from pydantic import Field, model_validator

from cutline.core.config import Section
from cutline.data.settings import DataSettings
from cutline.families.settings import GenerateSettings, ModelSettings


class KeepSettings(Section):
    """``[bootstrap.keep]``: what the filter lets through."""

    threshold: float = Field(
        0.5, ge=0, le=1, description="lowest matching probability of a caption that is kept; published: 0.5"
    )
    share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of captions to keep, of each kind, web and synthetic, best first; replaces threshold",
    )


class DrawSettings(GenerateSettings):
    """``[bootstrap.generate]``: as ``[generate]``, but by default as published for bootstrapping, by nucleus sampling,
    which says more than beam search."""

    do_sample: bool = Field(True, description="sample tokens instead of taking the most probable")
    top_p: float = Field(0.9, gt=0, le=1, description="sample from the smallest set with this probability")
    min_new_tokens: int = Field(5, ge=0, description="shortest caption, in new tokens")
    max_new_tokens: int = Field(20, ge=1, description="longest caption, in new tokens, the end token included")


class BootstrapSettings(Section):
    """``[bootstrap]``: web images get synthetic captions, a matcher filters both kinds, the rest joins the dataset."""

    web: DataSettings | None = Field(None, description="images from the web with their captions; keys as in [data]")
    captioner: ModelSettings | None = Field(
        None, description="model that writes the synthetic captions; keys as in [model]"
    )
    filter: ModelSettings | None = Field(
        None, description="model that scores how well captions match their images; keys as in [model]"
    )
    captions: int = Field(1, ge=0, description="synthetic captions per image; 0: only filter the web captions")
    generate: DrawSettings = DrawSettings()
    keep: KeepSettings = KeepSettings()

    @model_validator(mode="after")
    def _writes(self) -> BootstrapSettings:
        if self.captions > 1 and not self.generate.do_sample:
            raise ValueError(
                "several captions per image need [bootstrap.generate] do_sample = true, or they are all alike"
            )
        return self
