"""The recipe's ``[bootstrap]`` section. Imports no torch."""

from __future__ import annotations

from pydantic import Field, model_validator

from cutline.core.config import Section
from cutline.data.settings import DataSettings
from cutline.families.settings import GenerateSettings, ModelSettings


class KeepSettings(Section):
    """``[bootstrap.keep]``: what the filter lets through."""

    threshold: float = Field(
        0.5, ge=0, le=1, description="captions whose probability to match is below it are dropped; published: 0.5"
    )
    share: float | None = Field(
        None, gt=0, le=1, description="instead: this share of the captions of each kind, web and synthetic, best first"
    )


class DrawSettings(GenerateSettings):
    """``[bootstrap.generate]``: as ``[generate]``, but by default as published for bootstrapping, by nucleus sampling,
    which says more than beam search."""

    do_sample: bool = Field(True, description="draw from the distribution instead of taking the best")
    top_p: float = Field(0.9, gt=0, le=1, description="sample from the smallest set with this probability")
    min_new_tokens: int = Field(5, ge=0, description="shortest caption, in new tokens")
    max_new_tokens: int = Field(20, ge=1, description="longest caption, in new tokens, the end token included")


class BootstrapSettings(Section):
    """``[bootstrap]``: web images get synthetic captions, a matcher filters both kinds, the rest joins the dataset."""

    web: DataSettings | None = Field(
        None, description="images from the web with the captions found beside them; keys as in [data]"
    )
    captioner: ModelSettings | None = Field(None, description="what writes the synthetic captions; keys as in [model]")
    filter: ModelSettings | None = Field(None, description="what matches captions and images; keys as in [model]")
    captions: int = Field(1, ge=0, description="synthetic captions an image; 0: web captions are filtered only")
    generate: DrawSettings = DrawSettings()
    keep: KeepSettings = KeepSettings()

    @model_validator(mode="after")
    def _writes(self) -> BootstrapSettings:
        if self.captions > 1 and not self.generate.do_sample:
            raise ValueError(
                "several captions an image need [bootstrap.generate] do_sample = true, or they are all alike"
            )
        return self
