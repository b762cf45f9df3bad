"""``cutline retrieve evaluate``: which model, which images, which folder, and the table at the end."""

from __future__ import annotations

import json as standard_json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from cutline.cli.tables import scores_table
from cutline.cli.terminal import bar, say
from cutline.core import config as recipes
from cutline.core.config import parse
from cutline.core.errors import CutlineError, RecipeError
from cutline.core.fingerprint import checkpoint_fingerprint
from cutline.core.verbosity import quiet_libraries
from cutline.data.dataset import Dataset
from cutline.families.base import Family
from cutline.families.common.retrieval import RetrievalFamily
from cutline.families.open import open_checkpoint, open_family, spare_threads
from cutline.metrics.evaluation import Evaluation
from cutline.retrieve.evaluate import evaluate, forget
from cutline.retrieve.settings import RetrieveSettings
from cutline.run import run as runs


@dataclass(frozen=True)
class Subject:
    """What is to be evaluated. ``load`` opens the model in a dtype; ``name`` says what it is in the note."""

    load: Any
    name: str
    dataset: Dataset
    settings: RetrieveSettings
    folder: Path


def run(
    model: str,
    dataset: str,
    out: Path | None,
    changes: Mapping[str, Any],
    overrides: Sequence[str],
    *,
    tiny: bool,
    overwrite: bool,
    json: bool,
    device: str,
    dtype: str,
) -> int:
    """Evaluates, prints, and returns how many images could not be opened."""
    quiet_libraries()
    if model.endswith(".toml"):
        subject = _of_recipe(model, dataset, out, changes, overrides, tiny=tiny, device=device)
    else:
        subject = _of_checkpoint(model, dataset, out, changes, overrides, tiny=tiny, device=device)
    settings = subject.settings
    if settings.verify and dtype == "float32":
        say("--verify changes nothing in float32")
    split = subject.dataset.default_split() if settings.split == "auto" else settings.split
    data = subject.dataset.split(split) if split else subject.dataset
    if overwrite:
        forget(subject.folder)
    family = as_retrieval(subject.load(dtype))
    spare_threads(family)
    exact = as_retrieval(subject.load("float32")) if settings.verify and dtype != "float32" else None
    made_by = {
        "model": subject.name, "dtype": dtype, "data": data.fingerprint, "split": split,
        "k_test": settings.k_test, "match": settings.match, "verify": exact is not None,
    }  # fmt: skip
    begun = time.monotonic()
    found = evaluate(family, list(data), settings, subject.folder, made_by, exact, bar)
    _show(found, split, json)
    say(f"{subject.folder}/scores.json, hits.jsonl; {time.monotonic() - begun:.0f} s")
    return found.counts["failed"]


def as_retrieval(family: Family) -> RetrievalFamily:
    """The family, if it embeds."""
    family.needs("embed")
    return cast("RetrievalFamily", family)


def _of_checkpoint(
    model: str, dataset: str, out: Path | None, changes: Mapping[str, Any], overrides: Sequence[str],
    *, tiny: bool, device: str,
) -> Subject:  # fmt: skip
    folder = Path(model)
    if (folder / "recipe.toml").is_file():
        return _of_recipe(model, dataset, out, changes, overrides, tiny=tiny, device=device)
    if tiny:
        raise CutlineError("--tiny rehearses a recipe.", "Give a recipe, or leave --tiny out.")
    if not dataset:
        raise CutlineError(f"{model} doesn't say on which images.", "Give a prepared dataset behind it.")
    named = [f"retrieve.{text.removeprefix('retrieve.')}" for text in overrides]
    settings = parse({"retrieve": dict(changes)}, Section, named, where="--set").retrieve
    place = out or Path("runs") / re.sub(r"[^\w.-]+", "-", f"retrieve-{folder.name}-{Path(dataset).name}")
    return Subject(
        lambda dtype: open_checkpoint(model, dtype, device, task="embed"),
        checkpoint_fingerprint(model),
        Dataset.open(dataset),
        settings,
        place,
    )


class Section(recipes.Section):
    retrieve: RetrieveSettings


def _of_recipe(
    model: str, dataset: str, out: Path | None, changes: Mapping[str, Any], overrides: Sequence[str],
    *, tiny: bool, device: str,
) -> Subject:  # fmt: skip
    """A recipe's model on its data: what it trained where it trains, else what it opens."""
    path = Path(model) if model.endswith(".toml") else Path(model) / "recipe.toml"
    recipe = recipes.load(path, runs.Recipe, overrides)
    place = runs.default_folder(path, tiny)
    whole = runs.Run(recipe, place, tiny=tiny, bars=bar)
    settings = (whole.recipe.retrieve or RetrieveSettings()).model_copy(update=dict(changes))
    if not dataset:
        whole(("prepare", "bootstrap"))
    data = Dataset.open(dataset) if dataset else whole.dataset()
    trained = place / "model" if (place / "model").is_dir() else None
    if recipe.train and trained is None:
        raise RecipeError(
            f"{path} trains, and {place} holds no finished training.", f"Train first: cutline train {path}"
        )

    def load(dtype: str) -> Family:
        if trained:
            return open_checkpoint(trained, cast(Any, dtype), device, task="embed")
        changed = whole.recipe.model.model_copy(update={"dtype": dtype, "device": device})
        captions = [text for texts in data.column("captions") for text in texts] if tiny else []
        return open_family(
            changed, captions, tiny=tiny, seed=recipe.seed, task=_task(settings), place=place / "miniature"
        )

    name = (
        checkpoint_fingerprint(str(trained))
        if trained
        else f"{whole.recipe.model.checkpoint}{' (tiny)' if tiny else ''}"
    )
    return Subject(load, name, data, settings, out or place / "retrieve")


def _task(settings: RetrieveSettings) -> str:
    return "match" if settings.match else "embed"


def _show(found: Evaluation, split: str, json: bool) -> None:
    if json:
        print(standard_json.dumps(found.to_json(), indent=2))
    else:
        Console().print(scores_table(found))
    counts = found.counts
    say(f"{counts['images']:,} images{f' of {split}' if split else ''}, {counts['captions']:,} captions")
    for direction, note in found.notes.items():
        say(f"{direction}: {note}")
    words = {
        "failed": "images could not be opened; their queries count as misses",
        "captions_of_several_images": "captions are written for several images; only their own counts as right",
        "pictures_that_come_again": "images are another one's picture again; only the own one counts as right",
        "tr_ranks_that_hang_on_ties": "images' ranks hang on ties, which count against",
        "ir_ranks_that_hang_on_ties": "captions' ranks hang on ties, which count against",
        "pairs_computed_in_float32_too": "pairs were computed in float32, too",
    }
    for name, text in words.items():
        if counts.get(name):
            say(f"{counts[name]:,} {text}")
