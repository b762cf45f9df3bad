"""Rows of the dataset's table, made from samples whose image is checked and stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cutline.core.records import Sample
from cutline.data.addresses import is_address
from cutline.data.dataset import IMAGE_COLUMNS, image_name
from cutline.data.settings import DataSettings
from cutline.images.open import ImageFacts


def source_name(image: str, settings: DataSettings) -> str:
    """What the image is called where it comes from: relative, so that a dataset tells nothing of the machine."""
    if is_address(image):
        return image
    source = Path(str(settings.source))
    roots = [source if source.is_dir() else source.parent, *([Path(settings.images)] if settings.images else [])]
    path = Path(image)
    return next((path.relative_to(root).as_posix() for root in roots if path.is_relative_to(root)), path.name)


def as_checked(sample: Sample, facts: ImageFacts, path: Path, source: str) -> Sample:
    """A sample whose image is stored at a path, with what is known of it in ``extra``, as ``Dataset`` gives it.

    Args:
        source: what the image was called where it came from.
    """
    # a column of the source that has one of our names is kept under "source_", "width_" …
    extra = {f"{name}_" if name in IMAGE_COLUMNS else name: value for name, value in sample.extra.items()}
    known: dict[str, Any] = {"sha256": facts.sha256, "width": facts.width, "height": facts.height, "source": source}
    if facts.original:
        known |= {"original_width": facts.original[0], "original_height": facts.original[1]}
    if facts.notes:
        known |= {"photo_notes": dict(facts.notes)}
    return replace(sample, image=str(path), extra=extra | known)


def table_row(sample: Sample, facts: ImageFacts, source: str) -> dict[str, Any]:
    """A sample (``as_checked``) as a row of the table; ``source`` is what the image was called where it came from."""
    extra = {name: value for name, value in sample.extra.items() if name not in IMAGE_COLUMNS}
    return {
        "file_name": image_name(facts),
        "id": sample.id,
        "captions": list(sample.captions),
        "split": sample.split,
        "group": sample.group or sample.id,
        "context": _json(sample.context),
        "extra": _json(extra),
        "sha256": facts.sha256,
        "width": facts.width,
        "height": facts.height,
        "source": source,
    }


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), ensure_ascii=False, default=str)
