"""The retrieval stage of a recipe: recall of what was trained, or of what is opened, in both directions."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from cutline.core.progress import Bars, silent
from cutline.core.run_folder import RETRIEVAL, RunFolder
from cutline.retrieve.settings import RetrieveSettings

if TYPE_CHECKING:
    from cutline.data.dataset import Dataset
    from cutline.families.base import Family
    from cutline.metrics.evaluation import Evaluation

logger = logging.getLogger(__name__)


def retrieve_stage(
    run: RunFolder,
    open_model: Callable[[], Family],
    dataset: Dataset,
    split: str,
    settings: RetrieveSettings,
    state: str,
    begin: Callable[[str, str, tuple[str, ...]], None],
    bars: Bars = silent,
) -> Evaluation:
    """Evaluates, or goes on with it; returns what there is when nothing changed.

    Args:
        open_model: the model, in float32.
        split: of the dataset; "" for one without splits.
        state: changes when anything does that the numbers hang on.
        begin: sets what another recipe left aside.
        bars: shows the progress.
    """
    from cutline.metrics.evaluation import Evaluation

    if run.is_finished("retrieve", state):
        logger.info("retrieve: finished before")
        return Evaluation.load(run / RETRIEVAL)
    begin("retrieve", state, (RETRIEVAL,))
    from cutline.families.common.retrieval import RetrievalFamily
    from cutline.retrieve.evaluate import evaluate

    begun = time.monotonic()
    family = open_model()
    family.needs("embed")
    samples = list(dataset.split(split) if split else dataset)
    found = evaluate(cast(RetrievalFamily, family), samples, settings, run / RETRIEVAL, {"made_from": state}, bars=bars)
    if split == "test":  # choosing by the test split flatters; how often it was looked at is on record
        run.note(looks_at_test=run.facts().get("looks_at_test", 0) + 1)
    run.finish("retrieve", time.monotonic() - begun, split=split, images=found.counts["images"])
    return found
