"""The settings of every metric that uses a pretrained model. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cutline.core import hub
from cutline.core.config import Section
from cutline.core.errors import ScoreError


class EncoderSettings(Section):
    """A metric's own settings add ``model`` with its default checkpoint."""

    model: str
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="precision of the model; it changes the score slightly and is part of the signature"
    )
    device: str = Field("auto", description='"auto", "cpu", "cuda", "cuda:1", "mps"')
    batch_size: int = Field(64, ge=1, description="texts or images at a time; scores differ by rounding only")


def check_checkpoint(metric: str, settings: EncoderSettings) -> None:
    """Looks for the checkpoint's configuration, without opening the checkpoint.

    Raises:
        ScoreError: there is none.
    """
    if settings.model == "tiny":
        return
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(hub.resolve(settings.model))
    except (OSError, ValueError) as error:
        raise not_opened(metric, settings, error) from error


def not_opened(metric: str, settings: EncoderSettings, error: Exception) -> ScoreError:
    """The error of a checkpoint that could not be opened."""
    words = " ".join(str(error).split())[:200]
    return ScoreError(
        f"{metric}: the checkpoint {settings.model} could not be opened: {type(error).__name__}: {words}",
        f"Give a folder or a name on the hub as [score.{metric}] model (--set {metric}.model=…).",
    )
