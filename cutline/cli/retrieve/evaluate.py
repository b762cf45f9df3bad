"""``cutline retrieve evaluate``: recall of a model on a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast

import typer

from cutline.cli.options import Device, ExactDtype, Json, Overwrite, RecipeSet, Tiny

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cutline.data.dataset import Dataset
    from cutline.families.base import Family
    from cutline.families.common.retrieval import RetrievalFamily
    from cutline.metrics.evaluation import Evaluation
    from cutline.retrieve.settings import RetrieveSettings


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A checkpoint folder or hub name, a run folder, or a recipe.")
    ],
    dataset: Annotated[
        str, typer.Argument(metavar="[DATASET]", help="A prepared dataset; by default that of the recipe or run.")
    ] = "",
    split: Annotated[str, typer.Option(help="Split of the dataset; the recipe's by default, else test or val.")] = "",
    rerank: Annotated[
        int | None,
        typer.Option(
            min=0, help="Nearest candidates that the matching head ranks again, if the model has one; 0: none; 128."
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="In half precision: also compute in float32 what could change a rank."),
    ] = False,
    hits: Annotated[int | None, typer.Option(min=0, help="Candidates of each query to list in hits.jsonl; 10.")] = None,
    resamples: Annotated[int | None, typer.Option(min=0, help="Bootstrap resamples for the intervals; 1000.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the results.")] = None,
    overrides: RecipeSet = [],
    tiny: Tiny = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    device: Device = "auto",
    dtype: ExactDtype = "float32",
) -> None:
    """Evaluate image–text retrieval in both directions.

    Recall at 1, 5 and 10, mean and median rank of image → text (tr) and text → image (ir), with 95 % intervals over
    images. Interrupted at any moment, the same command resumes. Exit code 1 when images could not be opened.
    """
    import time

    from cutline.cli.terminal import bar, say
    from cutline.retrieve.evaluate import evaluate as evaluate_retrieval
    from cutline.retrieve.evaluate import forget

    options = {
        "split": split or None,
        "rerank": rerank,
        "verify": verify or None,
        "hits": hits,
        "resamples": resamples,
    }
    changes = {key: value for key, value in options.items() if value is not None}
    subject = _subject(_Arguments(model, dataset, out, changes, overrides, tiny, device))
    settings = subject.settings
    if settings.verify and dtype == "float32":
        say("--verify has no effect in float32")
    chosen = subject.dataset.default_split() if settings.split == "auto" else settings.split
    data = subject.dataset.split(chosen) if chosen else subject.dataset
    if overwrite:
        forget(subject.folder)
    family = _open(subject, dtype)
    exact = _open(subject, "float32") if settings.verify and dtype != "float32" else None
    made_by = {
        "model": subject.name,
        "dtype": dtype,
        "data": data.fingerprint,
        "split": chosen,
        "rerank": settings.rerank,
        "verify": exact is not None,
    }
    start = time.monotonic()
    evaluation = evaluate_retrieval(family, list(data), settings, subject.folder, made_by, exact, bar)
    _show(evaluation, chosen, as_json)
    say(f"{subject.folder}/scores.json, hits.jsonl; {time.monotonic() - start:.0f} s")
    if evaluation.counts["failed"]:
        raise typer.Exit(1)


class _Arguments(NamedTuple):
    """What says which model is evaluated on which data; as the verb's parameters, ``changes`` from its options."""

    model: str
    dataset: str
    out: Path | None
    changes: Mapping[str, Any]
    overrides: Sequence[str]
    tiny: bool
    device: str


class _Subject(NamedTuple):
    """What is evaluated, and how.

    Attributes:
        load: opens the model in a dtype.
        name: identifies the model in the note on what made the results.
    """

    load: Callable[[str], Family]
    name: str
    dataset: Dataset
    settings: RetrieveSettings
    folder: Path


def _open(subject: _Subject, dtype: str) -> RetrievalFamily:
    from cutline.families.common.retrieval import as_embedder

    return as_embedder(subject.load(dtype))


def _subject(given: _Arguments) -> _Subject:
    """The model, data and settings that the arguments name.

    Raises:
        CutlineError: options that the model doesn't go with.
    """
    if given.model.endswith(".toml"):
        return _recipe_subject(Path(given.model), given)
    if (Path(given.model) / "recipe.toml").is_file():
        return _recipe_subject(Path(given.model) / "recipe.toml", given)
    return _checkpoint_subject(given)


def _checkpoint_subject(given: _Arguments) -> _Subject:
    import re

    from cutline.cli.terminal import set_threads
    from cutline.core.config import parse
    from cutline.core.errors import CutlineError
    from cutline.core.fingerprint import checkpoint_fingerprint
    from cutline.data.dataset import Dataset
    from cutline.families.open import open_checkpoint
    from cutline.retrieve.settings import RetrieveRecipe

    if given.tiny:
        raise CutlineError("--tiny needs a recipe, not a checkpoint.", "Give a recipe, or leave out --tiny.")
    if not given.dataset:
        raise CutlineError(
            f"No dataset is given for the checkpoint {given.model}.", "Give a prepared dataset after it."
        )
    named = [f"retrieve.{text.removeprefix('retrieve.')}" for text in given.overrides]
    settings = parse({"retrieve": dict(given.changes)}, RetrieveRecipe, named, where="--set").retrieve
    name = re.sub(r"[^\w.-]+", "-", f"retrieve-{Path(given.model).name}-{Path(given.dataset).name}")
    return _Subject(
        lambda dtype: open_checkpoint(
            given.model, cast(Any, dtype), given.device, task="embed", set_threads=set_threads
        ),
        checkpoint_fingerprint(given.model),
        Dataset.open(given.dataset),
        settings,
        given.out or Path("runs") / name,
    )


def _recipe_subject(path: Path, given: _Arguments) -> _Subject:
    """A recipe's model on its data: what it trained if it trains, else its checkpoint."""
    from cutline.cli.terminal import bar, set_threads
    from cutline.core.errors import RecipeError
    from cutline.core.fingerprint import checkpoint_fingerprint
    from cutline.data.dataset import Dataset
    from cutline.families.open import open_checkpoint, open_family
    from cutline.retrieve.settings import RetrieveSettings
    from cutline.run.run import open_run

    run = open_run(path, None, given.overrides, tiny=given.tiny, bars=bar, set_threads=set_threads)
    recipe, folder = run.recipe, run.folder.path
    settings = (recipe.retrieve or RetrieveSettings()).model_copy(update=dict(given.changes))
    if not given.dataset:
        run(("prepare", "bootstrap"))
    data = Dataset.open(given.dataset) if given.dataset else run.dataset()
    trained = folder / "model" if (folder / "model").is_dir() else None
    if recipe.train and trained is None:
        raise RecipeError(
            f"{path} trains a model, and {folder} holds no finished training.", f"Train first: cutline train {path}"
        )

    def load(dtype: str) -> Family:
        if trained:
            return open_checkpoint(trained, cast(Any, dtype), given.device, task="embed", set_threads=set_threads)
        changed = recipe.model.model_copy(update={"dtype": dtype, "device": given.device})
        captions = [text for texts in data.column("captions") for text in texts] if run.tiny else []
        return open_family(
            changed,
            captions,
            tiny=run.tiny,
            seed=recipe.seed,
            task="embed",
            folder=folder / "miniature",
            set_threads=set_threads,
        )

    name = (
        checkpoint_fingerprint(str(trained)) if trained else f"{recipe.model.checkpoint}{' (tiny)' if run.tiny else ''}"
    )
    return _Subject(load, name, data, settings, given.out or folder / "retrieve")


#: Count of an evaluation → its message.
_COUNTS = {
    "failed": "images could not be opened; their queries count as misses",
    "shared_captions": "captions belong to several images; only their own image counts as right",
    "duplicate_images": "images occur more than once; only the own one counts as right",
    "tr_tied_ranks": "image queries have tied scores; ties are counted as wrong",
    "ir_tied_ranks": "caption queries have tied scores; ties are counted as wrong",
    "float32_pairs": "pairs were also computed in float32",
}


def _show(evaluation: Evaluation, split: str, as_json: bool) -> None:
    from rich.console import Console

    from cutline.cli.tables import print_json, scores_table
    from cutline.cli.terminal import say

    if as_json:
        print_json(evaluation.to_json())
    else:
        Console().print(scores_table(evaluation))
    counts = evaluation.counts
    say(f"{counts['images']:,} images{f' of {split}' if split else ''}, {counts['captions']:,} captions")
    for direction, note in evaluation.notes.items():
        say(f"{direction}: {note}")
    for name, text in _COUNTS.items():
        if counts.get(name):
            say(f"{counts[name]:,} {text}")
