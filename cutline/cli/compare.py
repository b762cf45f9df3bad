"""``cutline compare``: captions of the same images, by two systems or more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cutline.cli.options import (
    AllowExtra,
    AllowMissing,
    ColumnNames,
    ImageFolder,
    Json,
    Metrics,
    ReferenceSplit,
    ScoreSet,
    listed,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cutline.metrics.comparison import Comparison


def compare(
    predictions: Annotated[
        list[Path], typer.Argument(metavar="PREDICTIONS...", help="Two files or more; the first is the baseline.")
    ],
    references: Annotated[Path, typer.Option("--references", "-r", help="As for cutline score.")],
    split: ReferenceSplit = "",
    metrics: Metrics = "",
    resamples: Annotated[int, typer.Option(min=1, help="Resamples of both tests.")] = 1000,
    by: Annotated[str, typer.Option(help="Score by which the images with the largest changes are chosen.")] = "cider",
    most: Annotated[int, typer.Option(min=0, help="How many images with the largest gains, and losses, to list.")] = 5,
    allow_missing: AllowMissing = False,
    allow_extra: AllowExtra = False,
    as_json: Json = False,
    images: ImageFolder = None,
    column: ColumnNames = [],
    overrides: ScoreSet = [],
) -> None:
    """Compare captions of the same images: differences with confidence intervals, paired tests, largest changes."""
    from dataclasses import replace

    from cutline.cli.tables import print_json, show_warnings
    from cutline.cli.terminal import bar
    from cutline.core.config import parse
    from cutline.core.errors import ScoreError
    from cutline.metrics.comparison import compare as compare_systems
    from cutline.metrics.evaluation import ORACLE
    from cutline.metrics.files.systems import read_systems
    from cutline.metrics.settings import ScoreSettings

    changes = {"metrics": listed(metrics)} if metrics else {}
    settings = parse({"resamples": resamples} | changes, ScoreSettings, overrides, where="cutline compare")
    paths = dict(zip(_names(predictions), predictions, strict=True))
    if len(paths) < 2:
        raise ScoreError("There is nothing to compare.", "Give the predictions of two systems or more.")
    systems, loaded = read_systems(
        paths, references, split=split, images=images, column=column, allow_extra=allow_extra
    )
    comparison = compare_systems(
        systems,
        loaded.captions,
        settings.metrics,
        groups=loaded.groups or None,
        resamples=settings.resamples,
        seed=settings.seed,
        most=most,
        by=by,
        allow_missing=allow_missing,
        options=settings.options,
        images=loaded.images,
        training=[text for texts in loaded.training for text in texts],
        contexts=loaded.contexts or None,
        bars=bar,
    )
    if loaded.oracle:
        comparison = replace(comparison, warnings=(ORACLE, *comparison.warnings))
    if as_json:
        print_json(comparison.to_json())
    else:
        _show(comparison)
    show_warnings(comparison.warnings)


def _names(paths: Sequence[Path]) -> list[str]:
    """Short names of the systems: the files' names, with as many parent folders as makes them different."""
    from cutline.core.errors import ScoreError

    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    repeated = next(str(path) for path in paths if list(paths).count(path) > 1)
    raise ScoreError(f"{repeated} is given twice.", "Give each file of predictions once.")


def _show(comparison: Comparison) -> None:
    from rich.console import Console

    from cutline.cli.tables import comparison_table

    console = Console()
    console.print(comparison_table(comparison))
    for moved in comparison.moved:
        console.print(f"{moved.id}: {moved.metric} {moved.change:+.3f} in {moved.b}", highlight=False, markup=False)
        console.print(f"    {moved.caption_a or '(none)'}  →  {moved.caption_b or '(none)'}", markup=False)
