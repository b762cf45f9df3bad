"""The recipe: all its sections, and the folder of its run."""

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
    """All settings of a run, section by section."""

    about: str = Field("", description="description of the run, in a sentence or two; shown in the report")
    seed: int = Field(0, ge=0, description="seed for weights, shuffling and dropout")
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
        """Whether the run ends with recall instead of captions: it trains for retrieval, or trains nothing and has a
        section ``[retrieve]``."""
        return self.train.retrieval is not None if self.train else self.retrieve is not None

    @model_validator(mode="after")
    def _prompt_has_context(self) -> Recipe:
        if self.ablation and self.model.prompt is not None and "{context}" not in self.model.prompt:
            raise ValueError("[ablation] measures what context is worth, but [model] prompt has no {context}")
        return self

    @model_validator(mode="after")
    def _quantised_parts_are_not_trained(self) -> Recipe:
        policy = self.train.parts.get("text", "full") if self.train else "frozen"
        if self.model.quantize in ("nf4", "int8") and policy not in ("frozen", "lora"):
            raise ValueError(
                f'[train.parts] text = "{policy}", but [model] quantize = "{self.model.quantize}": a quantised '
                'part can only be "frozen" or "lora"'
            )
        return self


def default_folder(recipe: str | Path, tiny: bool) -> Path:
    """``runs/<name of the recipe>``; for the ``recipe.toml`` in a run folder, that folder."""
    path = Path(recipe)
    if path.name == "recipe.toml" and (path.parent / "run.json").exists():
        return path.parent
    name = re.sub(r"[^\w.-]+", "-", path.stem)
    return Path("runs") / (f"{name}-tiny" if tiny else name)


def with_saved_generation(recipe: Recipe) -> Recipe:
    """A recipe without training, with the generation settings that its checkpoint saves where it has none itself."""
    checkpoint = recipe.model.checkpoint
    if recipe.train or checkpoint is None:
        return recipe
    path = Path(checkpoint) / "cutline.json"
    saved = json.loads(path.read_text(encoding="utf-8")).get("generate") if path.is_file() else None
    if not saved:
        return recipe
    return recipe.model_copy(update={"generate": recipe.generate.over(GenerateSettings(**saved))})
