"""bootstrap: web images are prepared, captioned, filtered and added to the dataset."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutline.core.errors import RecipeError
from cutline.core.fingerprint import fingerprint
from cutline.run.stage import Stage
from cutline.run.stages.prepare import describe, open_scorer

if TYPE_CHECKING:
    from cutline.bootstrap.bootstrap import Bootstrapped
    from cutline.bootstrap.settings import BootstrapSettings
    from cutline.data.dataset import Dataset
    from cutline.families.base import Family
    from cutline.families.settings import ModelSettings
    from cutline.run.context import RunContext
    from cutline.run.recipe import Recipe

logger = logging.getLogger(__name__)

#: Folder of the stage in a run.
FOLDER = "bootstrap"


class Bootstrap(Stage):
    """Leaves ``bootstrap/dataset``, on which the recipe then trains."""

    name = "bootstrap"
    outputs = (FOLDER,)
    uses_split = False

    def applies(self, recipe: Recipe) -> bool:
        return recipe.bootstrap is not None

    def made_from(self, context: RunContext) -> str:
        settings = _settings(context).model_dump(mode="json")
        return fingerprint(context.own_dataset().fingerprint, settings, context.recipe.seed, context.tiny)

    def work(self, context: RunContext) -> Mapping[str, Any]:
        from cutline.bootstrap import bootstrap as rounds
        from cutline.data.dataset import Dataset
        from cutline.data.prepare.prepare import prepare
        from cutline.families.open import open_family

        settings, folder = _settings(context), context.folder / FOLDER
        assert settings.web is not None
        assert settings.filter is not None
        with context.bars("preparing web images") as progress:
            report = prepare(settings.web, folder / "web", progress, scorer=open_scorer)
        for line in describe(report):
            logger.info(line)
        web, human = Dataset.open(folder / "web"), context.own_dataset()
        captions = [text for texts in human.column("captions") for text in texts] if context.tiny else []

        def open_model(model: ModelSettings, task: str, miniature: Path) -> Family:
            return open_family(
                model,
                captions,
                tiny=context.tiny,
                seed=context.recipe.seed,
                task=task,
                folder=miniature,
                set_threads=context.set_threads,
            )

        matcher = open_model(settings.filter, "match", folder / "miniature-filter")
        captioner = None
        if settings.captions and settings.captioner is not None:
            same = settings.captioner == settings.filter and "caption" in matcher.tasks
            captioner = matcher if same else open_model(settings.captioner, "caption", folder / "miniature-captioner")
        made_by = {"made_from": self.made_from(context)}
        result = rounds.bootstrap(captioner, matcher, web, human, settings, folder, made_by, context.bars)
        for sentence in rounds.summary(result):
            logger.info(f"bootstrap: {sentence}")
        logger.info(f"bootstrap: {write_report(result, web, settings, folder)}")
        return {**result.counts, "images": result.merged.web}


def _settings(context: RunContext) -> BootstrapSettings:
    """
    Raises:
        RecipeError: a section that the stage needs is missing.
    """
    settings = context.recipe.bootstrap
    assert settings is not None
    if settings.web is None or settings.filter is None:
        missing = "web" if settings.web is None else "filter"
        raise RecipeError(f"[bootstrap] has no {missing}.", f"Add [bootstrap.{missing}].")
    if settings.captions and settings.captioner is None:
        raise RecipeError(
            f"[bootstrap] captions = {settings.captions} needs a captioning model.",
            "Add [bootstrap.captioner], or set captions = 0.",
        )
    return settings


def write_report(result: Bootstrapped, web: Dataset, settings: BootstrapSettings, folder: Path) -> Path:
    """Writes ``report.html`` about a round; returns its path."""
    from cutline.bootstrap.bootstrap import summary
    from cutline.bootstrap.captions import by_image
    from cutline.report import bootstrap_page

    keep = settings.keep
    rule = (
        f"the best {keep.share:.0%} of each kind" if keep.share else f"probability to match at least {keep.threshold}"
    )
    captions = {
        id: [one.to_json(stay) for one, stay in of] for id, of in by_image(result.captions, result.kept).items()
    }
    images = {sample.id: sample.image for sample in web}
    resolved = folder.resolve()
    name = resolved.parent.name if resolved.name == FOLDER else resolved.name  # in a run: the run's
    return bootstrap_page.write(
        folder / "report.html", name, rule, result.counts, captions, images, result.failed, summary(result)
    )
