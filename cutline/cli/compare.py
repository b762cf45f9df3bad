"""``cutline compare``: files of predictions on the same images in, a table or JSON out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cutline.cli.tables import comparison_table
from cutline.cli.terminal import bar, say
from cutline.core.config import parse
from cutline.core.errors import ScoreError
from cutline.metrics.comparison import Comparison, compare
from cutline.metrics.evaluation import ORACLE
from cutline.metrics.files.predictions import read_predictions
from cutline.metrics.files.references import read_references
from cutline.metrics.settings import ScoreSettings


def run(
    predictions: Sequence[Path],
    references: Path,
    split: str | None,
    metrics: Sequence[str] | None,
    resamples: int,
    by: str,
    as_json: bool,
    most: int = 5,
    allow_missing: bool = False,
    changes: Sequence[str] = (),
    images: Path | None = None,
) -> None:
    """Compares the later files with the first, and prints the result on stdout."""
    wanted = {"resamples": resamples} | ({"metrics": list(metrics)} if metrics is not None else {})
    settings = parse(wanted, ScoreSettings, changes, where="cutline compare")
    systems = {name: read_predictions(path) for name, path in zip(_names(predictions), predictions, strict=True)}
    if len(systems) < 2:
        raise ScoreError("There is nothing to compare.", "Give the predictions of two systems or more.")
    found = read_references(references, next(iter(systems.values())), split, images)
    if found.note:
        say(found.note)
    comparison = compare(
        systems,
        found.captions,
        settings.metrics,
        groups=found.groups or None,
        resamples=settings.resamples,
        seed=settings.seed,
        most=most,
        by=by,
        allow_missing=allow_missing,
        options=settings.options,
        images=found.images,
        training=[text for texts in found.training for text in texts],
        contexts=found.contexts or None,
        bars=bar,
    )
    if found.oracle:
        comparison = replace(comparison, warnings=(ORACLE, *comparison.warnings))
    if as_json:
        print(json.dumps(comparison.to_json(), ensure_ascii=False, indent=2))
    else:
        _show(comparison)
    for warning in comparison.warnings:
        say(f"warning: {warning}")


def _names(paths: Sequence[Path]) -> list[str]:
    """The files' own names, or as much of their paths as tells them apart."""
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    twice = next(str(path) for path in paths if list(paths).count(path) > 1)
    raise ScoreError(f"{twice} is given twice.", "Give each file of predictions once.")


def _show(comparison: Comparison) -> None:
    from rich.console import Console

    console = Console()
    console.print(comparison_table(comparison))
    for moved in comparison.moved:
        console.print(f"{moved.id}: {moved.metric} {moved.change:+.3f} in {moved.b}", highlight=False, markup=False)
        console.print(f"    {moved.caption_a or '(none)'}  →  {moved.caption_b or '(none)'}", markup=False)
