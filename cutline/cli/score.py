"""``cutline score``: two files in, a table or JSON out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from cutline.cli.tables import scores_table
from cutline.cli.terminal import bar, say
from cutline.core.config import parse
from cutline.metrics.evaluation import evaluate
from cutline.metrics.files.predictions import read_predictions
from cutline.metrics.files.references import read_references
from cutline.metrics.settings import ScoreSettings


def run(
    predictions: Path,
    references: Path,
    split: str | None,
    metrics: Sequence[str] | None,
    resamples: int,
    allow_missing: bool,
    as_json: bool,
    out: Path | None,
    changes: Sequence[str] = (),
    images: Path | None = None,
) -> None:
    """Scores a file of predictions against a file of references, and prints the result on stdout."""
    wanted = {"resamples": resamples} | ({"metrics": list(metrics)} if metrics is not None else {})
    settings = parse(wanted, ScoreSettings, changes, where="cutline score")
    made = read_predictions(predictions)
    found = read_references(references, made, split, images)
    if found.note:
        say(found.note)
    evaluation = evaluate(
        made,
        found.captions,
        training_captions=found.training,
        groups=found.groups or None,
        contexts=found.contexts or None,
        settings=settings,
        allow_missing=allow_missing,
        images=found.images,
        oracle=found.oracle,
        bars=bar,
    )
    if out:
        evaluation.save(out)
    if as_json:
        print(json.dumps(evaluation.to_json(), ensure_ascii=False, indent=2))
    else:
        from rich.console import Console

        Console().print(scores_table(evaluation))
    for warning in evaluation.warnings:
        say(f"warning: {warning}")
