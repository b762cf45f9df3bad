"""A recipe as a whole: every section, and where its run is kept."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pydantic import Field, model_validator

from cutline.ablation.settings import AblationSettings
from cutline.bootstrap.settings import BootstrapSettings
from cutline.core.config import Section
from cutline.data.settings import DataSettings
from cutline.families.settings import GenerateSettings, ModelSettings
from cutline.metrics.settings import ScoreSettings
from cutline.retrieve.settings import RetrieveSettings
from cutline.train.settings import TrainSettings


class Recipe(Section):
    """One experiment."""

    about: str = Field("", description="what the experiment is, in a sentence or two; shown in the report")
    seed: int = Field(0, ge=0, description="of new weights, of the order of training and of dropout")
    data: DataSettings
    model: ModelSettings
    train: TrainSettings | None = None
    generate: GenerateSettings = GenerateSettings()
    score: ScoreSettings = ScoreSettings()
    ablation: AblationSettings | None = None
    retrieve: RetrieveSettings | None = None
    bootstrap: BootstrapSettings | None = None

    @property
    def for_retrieval(self) -> bool:
        """Whether it ends with recall instead of captions: it trains for that, or trains nothing and says
        ``[retrieve]``."""
        return self.train.retrieval is not None if self.train else self.retrieve is not None

    @model_validator(mode="after")
    def _has_context(self) -> Recipe:
        if self.ablation and self.model.prompt is not None and "{context}" not in self.model.prompt:
            raise ValueError("[ablation] asks what context is worth, and [model] prompt has no {context}")
        return self

    @model_validator(mode="after")
    def _nothing_quantised_is_trained(self) -> Recipe:
        policy = self.train.parts.get("text", "full") if self.train else "frozen"
        if self.model.quantize in ("nf4", "int8") and policy not in ("frozen", "lora"):
            raise ValueError(
                f'[train.parts] text = "{policy}", but [model] quantize = "{self.model.quantize}": what is quantised '
                'stays frozen or has adapters; say "frozen" or "lora"'
            )
        return self


def default_folder(recipe: str | Path, tiny: bool) -> Path:
    """``runs/<the recipe's name>``; a recipe that is a run's own leads back to that run."""
    path = Path(recipe)
    if path.name == "recipe.toml" and (path.parent / "run.json").exists():
        return path.parent
    name = re.sub(r"[^\w.-]+", "-", path.stem)
    return Path("runs") / (f"{name}-tiny" if tiny else name)


def with_kept(recipe: Recipe) -> Recipe:
    """The recipe, with what the checkpoint that it opens keeps of generation where the recipe says nothing."""
    checkpoint = recipe.model.checkpoint
    if recipe.train or checkpoint is None:
        return recipe
    place = Path(checkpoint) / "cutline.json"
    kept = json.loads(place.read_text(encoding="utf-8")).get("generate") if place.is_file() else None
    if not kept:
        return recipe
    return recipe.model_copy(update={"generate": recipe.generate.over(GenerateSettings(**kept))})
