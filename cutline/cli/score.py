"""``cutline score``: captions against references."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cutline.cli.options import (
    AllowExtra,
    AllowMissing,
    ColumnNames,
    ImageFolder,
    Json,
    Metrics,
    References,
    ReferenceSplit,
    ScoreSet,
    listed,
)


def score(
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="predictions.jsonl, COCO results JSON, CSV or TSV.")
    ],
    references: Annotated[Path, typer.Argument(metavar="REFERENCES", help=References)],
    split: ReferenceSplit = "",
    metrics: Metrics = "",
    resamples: Annotated[
        int, typer.Option(min=0, help="Bootstrap resamples of the images; 0 computes no intervals.")
    ] = 1000,
    allow_missing: AllowMissing = False,
    allow_extra: AllowExtra = False,
    as_json: Json = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder that gets scores.json and per_image.jsonl.")
    ] = None,
    images: ImageFolder = None,
    column: ColumnNames = [],
    overrides: ScoreSet = [],
) -> None:
    """Score captions against references, with confidence intervals, metric signatures and baselines."""
    from cutline.cli.tables import print_json, show_scores, show_warnings
    from cutline.cli.terminal import bar
    from cutline.core.config import parse
    from cutline.metrics.evaluation import evaluate
    from cutline.metrics.files.systems import read_systems
    from cutline.metrics.settings import ScoreSettings

    changes = {"metrics": listed(metrics)} if metrics else {}
    settings = parse({"resamples": resamples} | changes, ScoreSettings, overrides, where="cutline score")
    systems, loaded = read_systems(
        {"": predictions}, references, split=split, images=images, column=column, allow_extra=allow_extra
    )
    evaluation = evaluate(
        systems[""],
        loaded.captions,
        training_captions=loaded.training,
        groups=loaded.groups or None,
        contexts=loaded.contexts or None,
        settings=settings,
        allow_missing=allow_missing,
        images=loaded.images,
        oracle=loaded.oracle,
        bars=bar,
    )
    if out:
        evaluation.save(out)
    if as_json:
        print_json(evaluation.to_json())
        show_warnings(evaluation.warnings)
    else:
        show_scores(evaluation)
