"""``cutline prepare``: settings from a recipe or a bare source, then preparing, then the counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

from cutline.cli.terminal import bar, say
from cutline.core import config as recipes
from cutline.core.errors import RecipeError
from cutline.data import steps
from cutline.data.prepare.manifest import manifest
from cutline.data.prepare.prepare import Engine, prepare
from cutline.data.settings import DataSettings, PrepareRecipe
from cutline.run.run import log_counts


def run(
    source: Path, out: Path, overrides: Sequence[str], only: Sequence[str] | None, retry: str, engine: str = "threads"
) -> None:
    """Prepares, and says what came of it.

    Args:
        source: the captioned images, or a recipe.
        out: folder of the dataset.
        only: names of the steps to take, of those that the recipe asks for; None for all.
        retry: "failed" or "".
        engine: "threads" or "ray".

    Raises:
        CutlineError: as ``prepare``.
    """
    if retry not in ("", "failed"):
        raise RecipeError(f"--retry {retry} is not known.", "--retry failed fetches again what failed.")
    if engine not in get_args(Engine):
        raise RecipeError(f"--engine {engine} is not known.", f"Engines: {', '.join(get_args(Engine))}.")
    table = recipes.read_toml(source) if source.suffix == ".toml" else {"data": {"source": str(source)}}
    settings = recipes.parse({"data": table.get("data", {})}, PrepareRecipe, overrides, where=str(source)).data
    if only is not None:
        settings = _only(settings, only)
        reads = any(steps.load(name).PHASE == "reading" for name in only)
        if reads and all(steps.needs_no_image(name) for name in only):
            counts = manifest(settings, out / "manifest.jsonl")
            say(f"manifest: {out / 'manifest.jsonl'} ({_told(counts[only[-1]])})")
            return
    with bar("preparing") as progress:
        report = prepare(settings, out, progress, retry_failed=retry == "failed", engine=cast(Engine, engine))
    log_counts(report)
    for name, counts in report.steps.items():
        say(f"{name}: {_told(counts)}")
    say(f"dataset: {out}")


def _only(settings: DataSettings, wanted: Sequence[str]) -> DataSettings:
    chosen = settings.steps.chosen()
    for name in wanted:
        if name not in chosen:
            known = ", ".join(chosen) or "none"
            raise RecipeError(f"--steps {name}: the recipe has no such step.", f"Its [data.steps]: {known}.")
    return settings.model_copy(update={"steps": settings.steps.only(wanted)})


def _told(counts: Mapping[str, Any]) -> str:
    """{"passed": 3, "source": {…}} → "3 passed, source: …"."""
    return ", ".join(
        f"{count:,} {reason}" if isinstance(count, int) else f"{reason}: {_told(count)}"
        for reason, count in counts.items()
    )
