"""Finding metrics: a file in this folder that says ``SCORES = (…)`` is one. Listing imports nothing."""

from __future__ import annotations

import ast
import difflib
import importlib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from cutline.core.config import Section
from cutline.core.errors import ScoreError
from cutline.metrics.base import Metric

_SCORES = re.compile(r"^SCORES = (\([^)]*\))", re.MULTILINE)
_SETTINGS = re.compile(r"^class Settings\(", re.MULTILINE)


@cache
def available() -> dict[str, tuple[str, ...]]:
    """Metric (its file's name) → the scores it yields."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        declared = _SCORES.search(path.read_text(encoding="utf-8"))
        if declared:
            found[path.stem] = tuple(ast.literal_eval(declared[1]))
    return found


@cache
def configurable() -> dict[str, type[Section]]:
    """Metric → its settings, of the metrics that have some. Imports those files, which import nothing heavy."""
    folder = Path(__file__).parent
    found = [name for name in available() if _SETTINGS.search((folder / f"{name}.py").read_text(encoding="utf-8"))]
    return {name: importlib.import_module(f"cutline.metrics.{name}").Settings for name in found}


def resolve(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Metrics and the scores wanted of each, for names of metrics ("bleu": all of its scores) or scores ("bleu4").

    Raises:
        ScoreError: nothing has that name.
    """
    known = available()
    owner = {score: metric for metric, scores in known.items() for score in scores}
    wanted: dict[str, list[str]] = {}
    for name in names:
        if name in known:
            metric, scores = name, known[name]
        elif name in owner:
            metric, scores = owner[name], (name,)
        else:
            near = difflib.get_close_matches(name, [*known, *owner], n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(sorted({*known, *owner}))}."
            raise ScoreError(f"There is no metric {name}.", hint)
        listed = wanted.setdefault(metric, [])
        listed.extend(score for score in scores if score not in listed)
    return {metric: tuple(scores) for metric, scores in wanted.items()}


def lower_is_better(score: str) -> bool:
    """Whether less of a score is better.

    Raises:
        ScoreError: it is no single score (a metric with several, or an unknown name).
    """
    ((metric, scores),) = resolve([score]).items()
    if score not in scores:
        raise ScoreError(f"{score} is several scores.", f"Choose one of them: {', '.join(scores)}.")
    return score in load(metric).lower_is_better


def load(metric: str) -> type[Metric]:
    """Imports a metric's file and gives its class."""
    module = importlib.import_module(f"cutline.metrics.{metric}")
    for item in vars(module).values():
        if isinstance(item, type) and issubclass(item, Metric) and item.__module__ == module.__name__:
            return item
    raise AssertionError(f"cutline/metrics/{metric}.py defines no Metric")
