"""``cutline prepare``: a source of captioned images becomes a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from cutline.cli.options import RecipeSet, listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cutline.data.settings import DataSettings


def prepare(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="File or folder with the captioned images, or a recipe.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the prepared dataset.")],
    overrides: RecipeSet = [],
    steps: Annotated[
        str, typer.Option(help="Only these steps of the recipe's [data.steps], separated by commas.")
    ] = "",
    retry: Annotated[str, typer.Option(metavar="failed", help="Repeat downloads that failed in an earlier run.")] = "",
    engine: Annotated[str, typer.Option(help='"threads" on this machine, or "ray" on a cluster.')] = "threads",
) -> None:
    """Turn captioned images of any format into a dataset that every verb reads.

    The format of the source is detected. Where the detection fails, set data.format, data.images, data.columns.caption
    or other keys of a recipe's [data] section with --set. A source may hold URLs instead of files: --set
    data.steps.download={} downloads them.
    """
    from typing import get_args

    from cutline.cli.terminal import bar, say
    from cutline.core import config
    from cutline.core.errors import RecipeError
    from cutline.data import steps as all_steps
    from cutline.data.prepare.manifest import manifest
    from cutline.data.prepare.prepare import prepare as prepare_dataset
    from cutline.data.prepare.work import Engine
    from cutline.data.settings import PrepareRecipe
    from cutline.run.stages.prepare import describe, open_scorer

    if retry not in ("", "failed"):
        raise RecipeError(f"--retry {retry} is unknown.", "Give --retry failed to repeat failed downloads.")
    if engine not in get_args(Engine):
        raise RecipeError(f"--engine {engine} is unknown.", f"Engines: {', '.join(get_args(Engine))}.")
    table = config.read_toml(source) if source.suffix == ".toml" else {"data": {"source": str(source)}}
    settings = config.parse({"data": table.get("data", {})}, PrepareRecipe, overrides, where=str(source)).data
    only = listed(steps)
    if only:
        settings = _with_steps(settings, only)
        reads = any(all_steps.load(name).PHASE == "reading" for name in only)
        if reads and all(all_steps.needs_no_image(name) for name in only):
            counts = manifest(settings, out / "manifest.jsonl")
            say(f"manifest: {out / 'manifest.jsonl'} ({_counts(counts[only[-1]])})")
            return
    with bar("preparing") as progress:
        report = prepare_dataset(
            settings,
            out,
            progress,
            retry_failed=retry == "failed",
            engine=cast(Engine, engine),
            scorer=open_scorer,
        )
    for line in describe(report):
        say(line)
    for name, step_counts in report.steps.items():
        say(f"{name}: {_counts(step_counts)}")
    say(f"dataset: {out}")


def _with_steps(settings: DataSettings, names: Sequence[str]) -> DataSettings:
    """The settings with only some of their steps.

    Raises:
        RecipeError: a step is not among them.
    """
    from cutline.core.errors import RecipeError

    chosen = settings.steps.chosen()
    for name in names:
        if name not in chosen:
            available = ", ".join(chosen) or "none"
            raise RecipeError(f"--steps {name}: the recipe has no such step.", f"Its [data.steps]: {available}.")
    return settings.model_copy(update={"steps": settings.steps.only(names)})


def _counts(counts: Mapping[str, Any]) -> str:
    """``{"passed": 3, "source": {…}}`` → ``"3 passed, source: …"``."""
    return ", ".join(
        f"{count:,} {reason}" if isinstance(count, int) else f"{reason}: {_counts(count)}"
        for reason, count in counts.items()
    )
