"""The content of a run folder, however far the run came, and a sentence for each part that is missing."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from cutline.caption import files as caption_files
from cutline.core import jsonl
from cutline.core.errors import CutlineError, DataError
from cutline.core.records import Prediction, Sample
from cutline.core.run_folder import RETRIEVAL
from cutline.data.dataset import PROBLEMS, Dataset
from cutline.images.open import ImageProblem
from cutline.metrics.evaluation import Evaluation
from cutline.report.thumbnails import Thumbnail, thumbnail

_SIGNS_OF_A_RUN = ("recipe.toml", "run.json", "stages", "predictions.jsonl", "scores.json", "train/log.jsonl")

Content = TypeVar("Content")


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """The content of a run folder. What isn't there is empty or None, and ``missing`` lists it.

    Attributes:
        recipe, recipe_text: ``recipe.toml``, parsed and as text.
        facts: ``run.json``.
        stages: stage → its marker, in the order of a run.
        split: the split that was captioned; "" when unknown.
        log: rows of ``train/log.jsonl``.
        panel: rows of ``train/panel.jsonl``: captions of a few images during training.
        stopped: why a guard stopped the training; {} when none did.
        ablation: the effect of context (``ablation/ablation.json``); {} without that stage.
        missing: what the report can't show, one sentence each.
    """

    name: str
    recipe: Mapping[str, Any]
    recipe_text: str
    facts: Mapping[str, Any]
    stages: Mapping[str, Mapping[str, Any]]
    split: str
    log: tuple[Mapping[str, Any], ...]
    panel: tuple[Mapping[str, Any], ...]
    stopped: Mapping[str, Any]
    predictions: Mapping[str, Prediction]
    evaluation: Evaluation | None
    ablation: Mapping[str, Any]
    photographs: Photographs
    missing: tuple[str, ...]

    @cached_property
    def rows(self) -> dict[str, int]:
        """Image id → its index in the evaluation's lists."""
        return {name: row for row, name in enumerate(self.evaluation.ids)} if self.evaluation else {}


class Photographs:
    """The samples and pictures of a dataset, looked up by id; None where there is no dataset."""

    def __init__(self, dataset: Dataset | None):
        self.dataset = dataset
        self._rows = {str(name): row for row, name in enumerate(dataset.column("id"))} if dataset else {}

    def ids(self, split: str) -> list[str]:
        """The ids of one split, in the table's order; none when there is no such split."""
        if self.dataset is None or split not in self.dataset.splits():
            return []
        return [str(name) for name in self.dataset.split(split).column("id")]

    def sample(self, name: str) -> Sample | None:
        row = self._rows.get(name)
        return None if row is None or self.dataset is None else self.dataset[row]

    def references(self, name: str) -> tuple[str, ...]:
        sample = self.sample(name)
        return sample.captions if sample else ()

    def picture(self, name: str, side_px: int) -> tuple[Thumbnail | None, str]:
        """A small picture, or why there is none."""
        sample = self.sample(name)
        if sample is None:
            return None, "not in the dataset"
        try:
            return thumbnail(sample.image, side_px), ""
        except ImageProblem as problem:
            return None, f"{problem.reason.replace('_', ' ')}: {problem.detail}"

    def problems(self) -> list[dict[str, Any]]:
        """Rows of ``problems.jsonl``."""
        path = self.dataset.path / PROBLEMS if self.dataset else None
        return list(jsonl.read(path)) if path and path.is_file() else []


def gather(run: Path, split: str | None) -> Gathered:
    """Reads a run folder, however far the run came.

    Args:
        split: the split that was captioned; by default what the run recorded.

    Raises:
        DataError: there is no such folder, or it has no files of a run.
    """
    if not any((run / sign).exists() for sign in _SIGNS_OF_A_RUN):
        problem = f"{run} has no files of a run." if run.is_dir() else f"There is no run folder {run}."
        raise DataError(problem, "Give the folder that cutline run wrote, such as runs/food.")
    folder = _Folder(run)
    text = folder.read("recipe.toml", lambda path: path.read_text(encoding="utf-8"), "")
    nothing: dict[str, Any] = {}
    recipe = folder.read("recipe.toml", lambda path: tomllib.loads(text), nothing)
    names = sorted(path.stem for path in (run / "stages").glob("*.json") if path.stem != "report")
    markers = {name: folder.read(f"stages/{name}.json", _object, nothing) for name in names}
    stages = dict(sorted(markers.items(), key=lambda marker: marker[1].get("started", 0)))
    photographs = Photographs(folder.dataset(recipe))
    no_predictions: dict[str, Prediction] = {}
    predictions = folder.read("predictions.jsonl", caption_files.read, no_predictions)
    gathered = Gathered(
        name=run.resolve().name,
        recipe=recipe,
        recipe_text=text,
        facts=folder.read("run.json", _object, nothing),
        stages=stages,
        split=split or _split(recipe, stages, predictions, photographs),
        log=folder.read("train/log.jsonl", _rows, ()),
        panel=folder.read("train/panel.jsonl", _rows, ()),
        stopped=folder.read("train/stopped.json", _object, nothing),
        ablation=folder.read("ablation/ablation.json", _object, nothing),
        predictions=predictions,
        evaluation=folder.read("scores.json", lambda path: Evaluation.load(path.parent), None),
        photographs=photographs,
        missing=(),
    )
    return replace(gathered, missing=tuple(dict.fromkeys([*folder.problems, *_missing(run, gathered)])))


class _Folder:
    """Reads files that may be absent or damaged.

    Attributes:
        problems: why a file can't be read, one sentence each.
    """

    def __init__(self, path: Path):
        self.path = path
        self.problems: list[str] = []

    def read(self, name: str, how: Callable[[Path], Content], default: Content) -> Content:
        """A file's content; the default where it is absent or damaged."""
        path = self.path / name
        if not path.is_file():
            return default
        try:
            return how(path)
        except (ValueError, KeyError, TypeError, CutlineError) as error:
            self.problems.append(f"{path.name} can’t be read: {getattr(error, 'problem', error)}")
            return default

    def dataset(self, recipe: Mapping[str, Any]) -> Dataset | None:
        """The run's dataset, or the one that its recipe names."""
        try:
            dataset = Dataset.open(recipe.get("data", {}).get("dataset") or self.path / "dataset")
            dataset.splits()  # reads the table's split column: a damaged table shows here
            return dataset
        except CutlineError as error:
            self.problems.append(f"The photographs can’t be shown. {error.problem}")
        except (OSError, ValueError) as error:
            self.problems.append(f"The photographs can’t be shown: {error}")
        return None


def _object(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value


def _rows(path: Path) -> tuple[Mapping[str, Any], ...]:
    return tuple(jsonl.read(path))


def _split(
    recipe: Mapping[str, Any],
    stages: Mapping[str, Mapping[str, Any]],
    predictions: Mapping[str, Prediction],
    photographs: Photographs,
) -> str:
    """The split that was captioned: from the stages, else from the recipe, else that of the first caption."""
    for stage in ("score", "caption"):
        if split := stages.get(stage, {}).get("split"):
            return str(split)
    split = recipe.get("generate", {}).get("split", "auto")
    if split and split != "auto":
        return str(split)
    sample = photographs.sample(next(iter(predictions), ""))
    return sample.split if sample else ""


def _missing(run: Path, gathered: Gathered) -> Iterator[str]:
    """Which parts of the run were not reached, or not completed."""
    stages, predictions, evaluation = gathered.stages, gathered.predictions, gathered.evaluation
    if not (run / "recipe.toml").is_file():
        yield "There is no recipe.toml, so the settings of this run are unknown."
    if "train" in gathered.recipe and not stages.get("train", {}).get("finished"):
        steps = max((row.get("step", 0) for row in gathered.log), default=0)
        yield f"Training stopped at step {steps:,}, before its end." if gathered.log else "Training has not begun."
    if predictions and not stages.get("caption", {"finished": True}).get("finished"):
        wanted = gathered.photographs.ids(gathered.split)
        of = f" of {len(wanted):,}" if wanted else ""
        yield f"Captioning is not finished: {len(predictions):,}{of} images so far."
    if (run / RETRIEVAL).is_dir():
        return  # such a run captions nothing
    if not predictions:
        yield "No image has been captioned."
    if not (run / "scores.json").is_file():
        yield "The captions have not been scored." if predictions else "There are no scores."
    elif evaluation is not None and not evaluation.ids:
        yield "There is no per_image.jsonl, so no examples can be chosen by their scores."
