"""What every metric that looks through a pretrained model can be told. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cutline.recipe import Section


class EncoderSettings(Section):
    """A metric's own settings add ``model`` with its usual checkpoint."""

    model: str
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="precision of the model; stands in the signature, because it moves the score"
    )
    device: str = Field("auto", description='"auto", "cpu", "cuda", "cuda:1", "mps"')
    batch_size: int = Field(64, ge=1, description="texts or images at a time; changes no score but by rounding")
