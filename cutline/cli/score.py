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
    from cutline.cli.terminal import bar, say
    from cutline.core.config import parse
    from cutline.metrics.evaluation import evaluate
    from cutline.metrics.files.predictions import read_predictions
    from cutline.metrics.files.references import read_references, without_extra
    from cutline.metrics.files.tables import chosen_columns
    from cutline.metrics.settings import ScoreSettings

    changes = {"metrics": listed(metrics)} if metrics else {}
    settings = parse({"resamples": resamples} | changes, ScoreSettings, overrides, where="cutline score")
    columns = chosen_columns(column)
    captions = read_predictions(predictions, columns)
    loaded = read_references(references, captions, split or None, images, columns)
    if allow_extra:
        captions, left_out = without_extra(loaded, captions)
        say(f"{left_out:,} predictions have no reference and were left out.")
    if loaded.note:
        say(loaded.note)
    evaluation = evaluate(
        captions,
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
