"""prepare: makes a dataset from the recipe's source."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cutline.run.stage import Stage

if TYPE_CHECKING:
    from cutline.data.prepare.prepare import Report
    from cutline.data.step import Scorer
    from cutline.run.context import RunContext

logger = logging.getLogger(__name__)


class Prepare(Stage):
    """Leaves ``dataset/``. Preparing itself detects changes, and resumes image by image."""

    name = "prepare"
    uses_split = False

    def made_from(self, context: RunContext) -> str:
        return context.own_dataset().fingerprint

    def work(self, context: RunContext) -> dict[str, object]:
        from cutline.data.prepare.prepare import prepare

        with context.bars("preparing") as progress:
            report = prepare(context.recipe.data, context.dataset_folder, progress, scorer=open_scorer)
        for line in describe(report):
            logger.info(line)
        return {}

    def __call__(self, context: RunContext) -> None:
        start = time.monotonic()
        self.work(context)
        made_from = self.made_from(context)
        context.folder.note(data={"folder": str(context.dataset_folder), "fingerprint": made_from})
        context.begin(self.name, made_from, self.outputs)
        context.folder.finish(self.name, time.monotonic() - start)


def open_scorer(checkpoint: str) -> Scorer:
    """Opens the model that ``[data.steps.filter]`` names.

    torch is imported only then, and a Ray worker finds this function by its name.
    """
    from cutline.retrieve.caption_scores import scorer

    return scorer(checkpoint)


def describe(report: Report) -> Iterator[str]:
    """How many images there are, which columns they come from, and how many rows are missing and why."""
    splits = ", ".join(f"{count:,} {name}" for name, count in report.splits.items())
    unchanged = ", unchanged" if report.unchanged else ""
    yield f"prepare: {report.samples:,} images ({splits}){unchanged}"
    if report.columns:
        yield "prepare: columns: " + ", ".join(f"{key} = {' + '.join(names)}" for key, names in report.columns.items())
    left_out = [(report.left_out, "left out by max_samples"), (report.dropped, "removed by steps")]
    if any(count for count, _ in left_out):
        yield "prepare: " + ", ".join(f"{count:,} samples {what}" for count, what in left_out if count)
    if report.problems:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in report.problems.items())
        yield f"prepare: {report.lost:,} of {report.rows:,} rows lost; problems.jsonl lists: {reasons}"
