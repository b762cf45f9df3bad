"""Finding metrics by name: one file in this folder each, and those that other packages register as entry points.

A package adds metrics with ``[project.entry-points."cutline.metrics"]`` and lines such as
``chrf = "my_package.chrf:Chrf"``.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from cutline.core.config import Section
from cutline.core.errors import ScoreError
from cutline.core.records import ScoreInfo
from cutline.metrics.base import Metric

GROUP = "cutline.metrics"
_DECLARES_SCORES = re.compile(r"^    scores = \(\s*ScoreInfo\(", re.MULTILINE)


@cache
def available() -> tuple[str, ...]:
    """The names of all metrics. Imports none of them."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    own = [path.stem for path in files if _DECLARES_SCORES.search(path.read_text(encoding="utf-8"))]
    return (*own, *(name for name in sorted(_registered()) if name not in own))


@cache
def load(metric: str) -> type[Metric]:
    """Imports a metric.

    Raises:
        ScoreError: there is no metric of that name; a package registers something else under it.
    """
    if metric not in available():
        raise _unknown(metric)
    if metric in _registered():
        found = _registered()[metric].load()
        if not (isinstance(found, type) and issubclass(found, Metric)):
            raise ScoreError(
                f"The entry point {metric} ({_registered()[metric].value}) is not a metric.",
                "Register a subclass of cutline.metrics.base.Metric.",
            )
        return found
    module = importlib.import_module(f"cutline.metrics.{metric}")
    for item in vars(module).values():
        if isinstance(item, type) and issubclass(item, Metric) and item.__module__ == module.__name__:
            return item
    raise AssertionError(f"cutline/metrics/{metric}.py defines no Metric")


@cache
def scores() -> dict[str, ScoreInfo]:
    """Score's name → what it means, of all metrics. Imports them all, but nothing heavy such as torch."""
    return {score.name: score for metric in available() for score in load(metric).scores}


@cache
def configurable() -> dict[str, type[Section]]:
    """Metric → the type of its settings, of the metrics that have some."""
    types = {name: load(name).settings_type for name in available()}
    return {name: settings_type for name, settings_type in types.items() if settings_type is not None}


def resolve(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Metrics and the scores wanted of each, for names of metrics ("bleu": all of its scores) or scores ("bleu4").

    Raises:
        ScoreError: there is no metric or score of that name.
    """
    wanted: dict[str, list[str]] = {}
    for name in names:
        if name in available():
            metric, several = name, tuple(score.name for score in load(name).scores)
        else:
            metric, several = _owner(name), (name,)
        listed = wanted.setdefault(metric, [])
        listed.extend(score for score in several if score not in listed)
    return {metric: tuple(several) for metric, several in wanted.items()}


def higher_is_better(score: str) -> bool:
    """Whether higher values of a score are better.

    Raises:
        ScoreError: it is not one score (a metric with several, or an unknown name), or neither direction is better.
    """
    ((_, several),) = resolve([score]).items()
    if score not in several:
        raise ScoreError(f"{score} has several scores.", f"Choose one of them: {', '.join(several)}.")
    better = scores()[score].higher_is_better
    if better is None:
        raise ScoreError(f"Neither higher nor lower values of {score} are better.", "Choose a score such as cider.")
    return better


def _owner(score: str) -> str:
    """The metric that returns a score."""
    owner = next((metric for metric in available() if score in {one.name for one in load(metric).scores}), None)
    if owner is None:
        raise _unknown(score)
    return owner


def _unknown(name: str) -> ScoreError:
    known = sorted({*available(), *scores()})
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return ScoreError(
        f"There is no metric {name}.", f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
    )


@cache
def _registered() -> dict[str, EntryPoint]:
    """Metric → the entry point by which a package registers it."""
    return {point.name: point for point in entry_points(group=GROUP)}
