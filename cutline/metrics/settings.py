"""The recipe's ``[score]`` section."""

from __future__ import annotations

from pydantic import Field, field_validator

from cutline.errors import ScoreError
from cutline.metrics.find import resolve
from cutline.recipe import Section

#: What is scored where nothing else is asked for.
DEFAULT = ("bleu", "rouge_l", "cider", "exact_match", "length", "hygiene")


class ScoreSettings(Section):
    metrics: tuple[str, ...] = Field(
        default=DEFAULT, min_length=1, description='metrics ("bleu") or single scores ("bleu4") to compute'
    )
    resamples: int = Field(
        default=1000, ge=0, description="bootstrap resamples for the 95 % intervals; 0: no intervals"
    )
    seed: int = Field(default=0, ge=0, description="seed of the resampling and of the shuffled baseline")

    @field_validator("metrics")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        try:
            resolve(names)
        except ScoreError as error:
            raise ValueError(str(error)) from error
        return names
