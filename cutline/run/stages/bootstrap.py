"""The bootstrap stage of a recipe: the web's images are prepared, captioned and filtered, and join the dataset."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cutline.bootstrap.settings import BootstrapSettings
from cutline.core.errors import RecipeError
from cutline.core.fingerprint import fingerprint
from cutline.core.progress import Bars, silent
from cutline.core.run_folder import RunFolder
from cutline.data.dataset import Dataset
from cutline.data.prepare.prepare import Report, prepare
from cutline.families.settings import ModelSettings

if TYPE_CHECKING:
    from cutline.families.base import Family

logger = logging.getLogger(__name__)


def made_from(human: Dataset, settings: BootstrapSettings, seed: int, tiny: bool) -> str:
    """Changes when anything does that the stage is made from."""
    return fingerprint(human.fingerprint, settings.model_dump(mode="json"), seed, tiny)


def bootstrap_stage(
    run: RunFolder,
    human: Dataset,
    settings: BootstrapSettings,
    seed: int,
    *,
    tiny: bool,
    begin: Callable[[str, str, tuple[str, ...]], None],
    counted: Callable[[Report], None],
    bars: Bars = silent,
) -> None:
    """Leaves ``bootstrap/dataset`` in the run folder, or what is there when nothing changed.

    Args:
        human: the recipe's own dataset.
        begin: sets what another round left aside.
        counted: says what preparing the web's images came to.
        bars: shows the progress.
    """
    if settings.web is None or settings.filter is None:
        missing = "web" if settings.web is None else "filter"
        raise RecipeError(f"[bootstrap] has no {missing}.", f"Add [bootstrap.{missing}].")
    if settings.captions and settings.captioner is None:
        raise RecipeError(
            f"[bootstrap] captions = {settings.captions}, and no model to write them.",
            "Add [bootstrap.captioner], or set captions = 0.",
        )
    state, folder = made_from(human, settings, seed, tiny), run / "bootstrap"
    if run.is_finished("bootstrap", state):
        logger.info("bootstrap: finished before")
        return
    begin("bootstrap", state, ("bootstrap",))
    from cutline.bootstrap import bootstrap as job
    from cutline.families.open import open_family, spare_threads

    begun = time.monotonic()
    with bars("preparing the web's images") as progress:
        counted(prepare(settings.web, folder / "web", progress))
    web = Dataset.open(folder / "web")
    captions = [text for texts in human.column("captions") for text in texts] if tiny else []

    def opened(model: ModelSettings, task: str, place: Path) -> Family:
        family = open_family(model, captions, tiny=tiny, seed=seed, task=task, place=place)
        spare_threads(family)
        return family

    matcher = opened(settings.filter, "match", folder / "miniature-filter")
    writer = None
    if settings.captions and settings.captioner is not None:
        one = settings.captioner == settings.filter and "caption" in matcher.can
        writer = matcher if one else opened(settings.captioner, "caption", folder / "miniature-captioner")
    found = job.bootstrap(writer, matcher, web, human, settings, folder, {"made_from": state}, bars)
    for sentence in job.words(found):
        logger.info(f"bootstrap: {sentence}")
    logger.info(f"bootstrap: {job.report(found, web, settings, folder)}")
    run.finish("bootstrap", time.monotonic() - begun, **found.counts, images=found.merged.web)
