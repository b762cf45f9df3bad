"""The table of what would be prepared: what the steps say that need no image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cutline.core import jsonl
from cutline.core.records import Sample
from cutline.data import readers, steps
from cutline.data.image_store import ImageStore
from cutline.data.prepare.prepare import through
from cutline.data.settings import DataSettings
from cutline.data.step import Workspace


def manifest(settings: DataSettings, path: Path) -> Mapping[str, Mapping[str, int]]:
    """Takes only the steps that need no image and writes what comes out of them as a table, which is itself a source.

    Returns:
        What each step did.
    """
    workspace = Workspace(path.parent, ImageStore(path.parent, settings.max_pixels))
    (path.parent / ".work").mkdir(parents=True, exist_ok=True)  # by which preparing knows the folder as its own
    path.unlink(missing_ok=True)
    texts = settings.steps.only([name for name in settings.steps.chosen() if steps.needs_no_image(name)])
    with (
        steps.Chain(texts, "reading", workspace) as chain,
        steps.Chain(texts, "checked", workspace) as then,
        jsonl.Appender(path) as out,
    ):
        for item in through(then, through(chain, readers.read(settings))):
            if isinstance(item, Sample):
                row = {"id": item.id, "image": item.image, "captions": item.captions, "split": item.split}
                out.write([row | {"group": item.group} | dict(item.context) | dict(item.extra)])
    return {**chain.counts, **then.counts}
