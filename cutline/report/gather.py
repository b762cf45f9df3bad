"""What a run folder holds, however far the run came; and what it lacks, said in sentences."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from cutline.caption import files as caption_files
from cutline.core import jsonl
from cutline.core.errors import CutlineError, DataError
from cutline.core.records import Prediction, Sample
from cutline.data.dataset import PROBLEMS, Dataset
from cutline.images.open import ImageProblem
from cutline.metrics.evaluation import Evaluation
from cutline.report.thumbnails import Thumbnail, thumbnail

#: In the order of a run; stages of other names come after them.
_STAGES = ("prepare", "train", "caption", "score", "ablate-captions", "ablate")

_NO_CAPTION = "No image has been captioned."

_SIGNS_OF_A_RUN = ("recipe.toml", "run.json", "stages", "predictions.jsonl", "scores.json", "train/log.jsonl")

Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """A run folder, read. What isn't there is empty or None, and ``missing`` says so.

    Attributes:
        recipe, recipe_text: ``recipe.toml``, as tables and as it stands.
        facts: ``run.json``.
        stages: stage → its marker, in the order of a run.
        split: the split that was captioned; "" when unknown.
        log: rows of ``train/log.jsonl``.
        panel: rows of ``train/panel.jsonl``: what the model said of a few images as it learnt.
        stopped: why a guard stopped the training; {} when none did.
        ablation: what context is worth (``ablation/ablation.json``); {} when it was not asked.
        missing: what the report can't show, a sentence each.
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
    """Reads a run folder, however far it came.

    Raises:
        DataError: there is no such folder, or nothing of a run in it.
    """
    if not any((run / sign).exists() for sign in _SIGNS_OF_A_RUN):
        what = f"{run} holds nothing of a run." if run.is_dir() else f"There is no run folder {run}."
        raise DataError(what, "Give the folder that cutline run wrote, such as runs/food.")
    missing: list[str] = []
    text = _try(missing, run / "recipe.toml", lambda path: path.read_text(encoding="utf-8")) or ""
    recipe = _try(missing, run / "recipe.toml", lambda path: tomllib.loads(text)) or {}
    facts = _try(missing, run / "run.json", _object) or {}
    stages = _stages(run, missing)
    if not (run / "recipe.toml").is_file():
        missing.append("There is no recipe.toml, so the settings of this run are unknown.")
    photographs = Photographs(_dataset(run, recipe, missing))
    log = _try(missing, run / "train/log.jsonl", lambda path: tuple(jsonl.read(path))) or ()
    panel = _try(missing, run / "train/panel.jsonl", lambda path: tuple(jsonl.read(path))) or ()
    stopped = _try(missing, run / "train/stopped.json", _object) or {}
    ablation = _try(missing, run / "ablation/ablation.json", _object) or {}
    found = _try(missing, run / "predictions.jsonl", caption_files.read) or {}
    evaluation = _try(missing, run / "scores.json", lambda path: Evaluation.load(path.parent))
    split = split or _split(recipe, stages, found, photographs)
    missing += _unfinished(recipe, stages, log, found, photographs.ids(split))
    if (run / "retrieval").is_dir():  # such a run captions nothing
        missing = [sentence for sentence in missing if sentence != _NO_CAPTION]
    elif not (run / "scores.json").is_file():
        missing.append("The captions have not been scored." if found else "There are no scores.")
    elif evaluation is not None and not evaluation.ids:
        missing.append("There is no per_image.jsonl, so no examples can be chosen by their scores.")
    return Gathered(
        name=run.resolve().name, recipe=recipe, recipe_text=text, facts=facts, stages=stages, split=split, log=log,
        panel=panel, stopped=stopped, ablation=ablation,
        predictions=found, evaluation=evaluation, photographs=photographs, missing=tuple(dict.fromkeys(missing)),
    )  # fmt: skip


def _try(missing: list[str], path: Path, read: Callable[[Path], Found]) -> Found | None:
    """Reads a file that may be absent or damaged; the report goes on without it."""
    if not path.is_file():
        return None
    try:
        return read(path)
    except (ValueError, KeyError, TypeError, CutlineError) as error:
        missing.append(f"{path.name} can’t be read: {getattr(error, 'problem', error)}")
        return None


def _object(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value


def _stages(run: Path, missing: list[str]) -> dict[str, Mapping[str, Any]]:
    names = sorted(path.stem for path in (run / "stages").glob("*.json") if path.stem != "report")
    names.sort(key=lambda name: _STAGES.index(name) if name in _STAGES else len(_STAGES))
    return {name: _try(missing, run / f"stages/{name}.json", _object) or {} for name in names}


def _dataset(run: Path, recipe: Mapping[str, Any], missing: list[str]) -> Dataset | None:
    elsewhere = recipe.get("data", {}).get("dataset")
    try:
        dataset = Dataset.open(elsewhere or run / "dataset")
        dataset.splits()  # reads the table's split column: a damaged table shows here
        return dataset
    except CutlineError as error:
        missing.append(f"The photographs can’t be shown. {error.problem}")
    except (OSError, ValueError) as error:
        missing.append(f"The photographs can’t be shown: {error}")
    return None


def _split(
    recipe: Mapping[str, Any],
    stages: Mapping[str, Mapping[str, Any]],
    found: Mapping[str, Prediction],
    photographs: Photographs,
) -> str:
    """The split that was captioned: as the stages say, else as the recipe says, else that of the first caption."""
    said = [stages.get(stage, {}).get("split") for stage in ("score", "caption")]
    asked = recipe.get("generate", {}).get("split", "auto")
    sample = photographs.sample(next(iter(found), ""))
    known = [*said, None if asked == "auto" else asked, sample.split if sample else None]
    return next((str(split) for split in known if split), "")


def _unfinished(
    recipe: Mapping[str, Any],
    stages: Mapping[str, Mapping[str, Any]],
    log: tuple[Mapping[str, Any], ...],
    found: Mapping[str, Prediction],
    wanted: list[str],
) -> list[str]:
    """Which parts of the run were not reached, or not completed."""
    said = []
    if "train" in recipe and not stages.get("train", {}).get("finished"):
        steps = max((row.get("step", 0) for row in log), default=0)
        said.append(f"Training stopped at step {steps:,}, before its end." if log else "Training has not begun.")
    if not found:
        said.append(_NO_CAPTION)
    elif not stages.get("caption", {"finished": True}).get("finished"):
        of = f" of {len(wanted):,}" if wanted else ""
        said.append(f"Captioning is not finished: {len(found):,}{of} images so far.")
    return said
