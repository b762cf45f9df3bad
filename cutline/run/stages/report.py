"""report: writes a page about the run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cutline.run.stage import Stage

if TYPE_CHECKING:
    from cutline.run.context import RunContext

logger = logging.getLogger(__name__)


class Report(Stage):
    """Leaves ``report.html``, written every time: it also shows unfinished stages."""

    name = "report"
    uses_split = False

    def made_from(self, context: RunContext) -> str:
        return ""

    def work(self, context: RunContext) -> Mapping[str, Any]:
        from cutline.report.page import write

        logger.info(f"report: {write(context.folder.path)}")
        return {}

    def __call__(self, context: RunContext) -> None:
        self.work(context)
