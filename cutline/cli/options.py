"""Options that several verbs share, so that a flag means the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# ---- recipes and their runs

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe: a TOML file.")]
RunOut = Annotated[Path | None, typer.Option("--out", "-o", help="The run folder; runs/<recipe> by default.")]
RecipeSet = Annotated[
    list[str],
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a value of the recipe; can be repeated."),
]
Tiny = Annotated[
    bool, typer.Option("--tiny", help="Rehearse with a small random model of the same kind, on a few images.")
]

# ---- models

Device = Annotated[str, typer.Option(help='"auto", "cpu", "cuda", "cuda:1" or "mps".')]
Dtype = Annotated[str, typer.Option(help='Data type of the weights: "auto", "float32", "bfloat16" or "float16".')]
ExactDtype = Annotated[str, typer.Option(help='Data type of the weights: "float32", "bfloat16" or "float16".')]

# ---- scoring

References = "A prepared dataset, COCO or Karpathy JSON, JSON lines, CSV."
ReferenceSplit = Annotated[str, typer.Option("--split", help="Split of the references to score against.")]
Metrics = Annotated[str, typer.Option(help="Metrics, separated by commas; the usual ones by default.")]
AllowMissing = Annotated[bool, typer.Option("--allow-missing", help="Score missing captions as empty.")]
AllowExtra = Annotated[bool, typer.Option("--allow-extra", help="Ignore predictions for images without references.")]
ColumnNames = Annotated[
    list[str],
    typer.Option(
        "--column",
        metavar="KEY=NAME",
        help="Name of a table's column for image, id, caption, prediction, split or group; can be repeated.",
    ),
]
ScoreSet = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="Another key of [score] (clipscore.model=…); can be repeated."),
]
ImageFolder = Annotated[Path | None, typer.Option("--images", help="Folder of the images, for metrics that need them.")]

# ---- output

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Start over instead of resuming.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def listed(text: str) -> list[str]:
    """``"cider, bleu4"`` → ``["cider", "bleu4"]``; an empty text gives an empty list."""
    return [name.strip() for name in text.split(",")] if text else []
