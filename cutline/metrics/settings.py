"""The recipe's ``[score]`` section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, create_model, field_validator, model_validator

from cutline.core.config import Section
from cutline.core.errors import ScoreError
from cutline.metrics.find import configurable, load, resolve
from cutline.metrics.text import meteor_data

#: The metrics computed by default; METEOR only where its data is installed.
DEFAULT = (
    "bleu",
    *(("meteor",) if meteor_data.is_available() else ()),
    "rouge_l",
    "cider",
    "exact_match",
    "length",
    "hygiene",
)


class _ScoreSettings(Section):
    metrics: tuple[str, ...] = Field(
        default=DEFAULT, min_length=1, description='metrics ("bleu") or single scores ("bleu4") to compute'
    )
    resamples: int = Field(
        default=1000, ge=0, description="bootstrap resamples for the 95 % intervals; 0: no intervals"
    )
    seed: int = Field(default=0, ge=0, description="seed for the resamples and for the baseline of shuffled captions")

    @field_validator("metrics")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        try:
            resolve(names)
        except ScoreError as error:
            raise ValueError(str(error)) from error
        return names

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, values: Any) -> Any:
        """Gives every chosen metric that has settings its section, so that the resolved recipe shows them."""
        if not isinstance(values, dict):
            return values
        try:
            chosen = resolve(values.get("metrics", DEFAULT))
        except (ScoreError, TypeError):  # reported where the names are checked
            return values
        return {name: {} for name in configurable() if name in chosen} | values

    @property
    def options(self) -> dict[str, Section]:
        """Metric → its settings, of those that have a section."""
        options = {name: getattr(self, name) for name in configurable()}
        return {name: settings for name, settings in options.items() if settings is not None}

    def check(self) -> None:
        """Raises ScoreError where a chosen metric lacks what it needs: a checkpoint, a program, a file."""
        options = self.options
        for name in resolve(self.metrics):
            metric = load(name)
            metric.check(options.get(name) or (metric.settings_type and metric.settings_type()))

    def tiny(self) -> ScoreSettings:
        """The settings for a ``--tiny`` run: few resamples, tiny models in place of checkpoints, and no METEOR.

        Building METEOR's index takes longer than all the rest of such a run.
        """
        tiny_models = {
            name: settings.model_copy(update={"model": "tiny"})
            for name, settings in self.options.items()
            if "model" in type(settings).model_fields
        }
        metrics = tuple(name for name in self.metrics if name != "meteor") or ("cider",)
        return self.model_copy(update={"resamples": 50, "metrics": metrics, **tiny_models})


if TYPE_CHECKING:
    ScoreSettings = _ScoreSettings
else:  # one optional section for each metric that has settings
    ScoreSettings = create_model(
        "ScoreSettings",
        __base__=_ScoreSettings,
        **{
            name: (settings | None, Field(default=None, description=f"settings of the metric {name}"))
            for name, settings in configurable().items()
        },
    )
