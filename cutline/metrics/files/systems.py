"""Reading what is scored: predictions of one or several systems, and the references that belong to them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from cutline.metrics.files.predictions import Read, read_predictions
from cutline.metrics.files.references import ReferenceSet, by_ids_of, read_references, without_extra
from cutline.metrics.files.tables import chosen_columns

logger = logging.getLogger(__name__)


def read_systems(
    paths: Mapping[str, Path],
    references: Path,
    *,
    split: str = "",
    images: Path | None = None,
    column: Sequence[str] = (),
    allow_extra: bool = False,
) -> tuple[dict[str, dict[str, Read]], ReferenceSet]:
    """The predictions of each system, by the ids of the references, and the references.

    Args:
        paths: a system's name → its file of predictions; the first one's names become the images' ids.
        references: a prepared dataset's folder or a file.
        split: only the images of this split; "": the only split that the predictions are from, or all.
        images: the folder in which the image files are.
        column: ``KEY=NAME`` each: columns of tables.
        allow_extra: leave out, and count, predictions without a reference.

    Raises:
        ScoreError: a file can't be read, or names don't match.
    """
    columns = chosen_columns(column)
    systems = {name: read_predictions(path, columns) for name, path in paths.items()}
    loaded = read_references(references, next(iter(systems.values())), split or None, images, columns)
    for number, (name, captions) in enumerate(systems.items()):
        if number:
            systems[name] = by_ids_of(loaded, captions, references)
        if allow_extra:
            systems[name], left_out = without_extra(loaded, systems[name])
            which = f"{name}: " if len(systems) > 1 else ""
            logger.info(f"{which}{left_out:,} predictions have no reference and were left out.")
    if loaded.note:
        logger.info(loaded.note)
    return systems, loaded
