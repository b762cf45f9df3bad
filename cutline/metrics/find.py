"""Finding metrics by name: one file in this folder each, and those that other packages register as entry points.

A package adds metrics with ``[project.entry-points."cutline.metrics"]`` and lines such as
``chrf = "my_package.chrf:Chrf"``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from cutline.core.config import Section
from cutline.core.errors import ScoreError
from cutline.core.plugins import Plugins
from cutline.core.records import ScoreInfo
from cutline.core.suggest import did_you_mean
from cutline.metrics.base import Metric

PLUGINS = Plugins(
    "metrics",
    noun="metric",
    package="cutline.metrics",
    defines=r"^class (?!MeanMetric)[A-Z]\w*\((Mean)?Metric\)",
    required={"scores": tuple},
    error=ScoreError,
)


def available() -> tuple[str, ...]:
    """The names of all metrics. Imports none of them."""
    return PLUGINS.names()


@cache
def load(metric: str) -> type[Metric]:
    """Imports a metric.

    Raises:
        ScoreError: there is no metric of that name.
        CutlineError: another package's metric can't be imported, or is none.
    """
    if metric not in available():
        raise _unknown(metric)
    return PLUGINS.find(metric, Metric)


@cache
def _usable() -> tuple[str, ...]:
    """The metrics, without those of other packages that can't be imported."""
    return PLUGINS.usable(Metric)


@cache
def scores() -> dict[str, ScoreInfo]:
    """Score's name → what it means, of all metrics. Imports them all, but nothing heavy such as torch."""
    return {score.name: score for metric in _usable() for score in load(metric).scores}


@cache
def configurable() -> dict[str, type[Section]]:
    """Metric → the type of its settings, of the metrics that have some."""
    types = {name: load(name).settings_type for name in _usable()}
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
    owner = next((metric for metric in _usable() if score in {one.name for one in load(metric).scores}), None)
    if owner is None:
        raise _unknown(score)
    return owner


def _unknown(name: str) -> ScoreError:
    known = sorted({*available(), *scores()})
    return ScoreError(f"There is no metric {name}.", did_you_mean(name, known, f"Known: {', '.join(known)}."))
