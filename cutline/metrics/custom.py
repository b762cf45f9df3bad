"""A metric of your own in one call, without a file in this folder.

An object with ``scores`` and ``values`` is enough, when the score of the set is the mean over the images::

    class StartsWithCapital:
        scores = (ScoreInfo("capital", "Capital", "Share of captions that start with a capital letter.", unit="share"),)

        def values(self, candidates):
            return [caption[:1].isupper() for caption in candidates.captions]

    cutline.score(predictions, references, metrics=[StartsWithCapital(), "cider"])

``candidates.references`` holds the references, their tokens and the images' paths: see :mod:`cutline.metrics.base`. A
score that is no mean over images is a subclass of :class:`~cutline.metrics.base.Metric`; give the class itself.
Optional attributes are those of ``Metric``: ``version``, ``uses_tokens``, ``compares``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from cutline.core.errors import ScoreError
from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, MeanMetric, Metric, References


class CustomMetric(Protocol):
    """What an object needs so that it can be given as a metric."""

    @property
    def scores(self) -> Sequence[ScoreInfo]:
        """One for each value that :meth:`values` returns."""
        ...

    def values(self, candidates: Candidates) -> ArrayLike:
        """Numbers [n], one for each image, or [n, K] for K scores; in the order of ``candidates.captions``."""
        ...


#: A metric that isn't named: an object, or what makes a metric for given references (the class, or a function).
Given = CustomMetric | Callable[[References], Metric]


def build(given: object, references: References) -> Metric:
    """The metric for some references.

    Args:
        given: see :data:`Given`; whatever else it is, is reported.

    Raises:
        ScoreError: it lacks what a metric needs.
    """
    if isinstance(given, Metric):
        name = type(given).__name__
        raise ScoreError(
            f"{name} is given as an object, which belongs to other references.",
            f"Give the class itself, metrics=[{name}], or a function of the references that returns it.",
        )
    if hasattr(given, "scores") and hasattr(given, "values") and not isinstance(given, type):
        return _Wrapped(references, given)
    if isinstance(given, type) and not issubclass(given, Metric) and hasattr(given, "values"):
        raise ScoreError(f"{given.__name__} is given as a class.", f"Give an object: metrics=[{given.__name__}()].")
    if not callable(given):
        raise ScoreError(
            f"{given!r:.60} is not a metric.",
            "Give a metric's name, or an object with scores (a tuple of ScoreInfo) and values(candidates).",
        )
    made = given(references)
    if not isinstance(made, Metric):
        name = getattr(given, "__name__", repr(given))
        raise ScoreError(
            f"{name} returns {type(made).__name__}, which is not a metric.",
            "Return a cutline.metrics.base.Metric, or give an object with scores and values(candidates).",
        )
    return made


class _Wrapped(MeanMetric):
    """The metric that an object with ``scores`` and ``values`` describes."""

    def __init__(self, references: References, given: Any):
        super().__init__(references)
        self._given = given
        self._name = type(given).__name__
        scores = given.scores
        if not isinstance(scores, tuple | list) or not scores or not all(isinstance(s, ScoreInfo) for s in scores):
            raise ScoreError(
                f"{self._name}.scores is not a tuple of ScoreInfo.",
                'Declare each score: scores = (cutline.ScoreInfo("name", "Label", "What it means."),).',
            )
        self.scores = tuple(scores)  # type: ignore[misc]
        self.version = getattr(given, "version", 1)  # type: ignore[misc]
        self.uses_tokens = getattr(given, "uses_tokens", False)  # type: ignore[misc]
        self.compares = getattr(given, "compares", True)  # type: ignore[misc]

    def values(self, candidates: Candidates) -> Floats:
        images, scores = len(candidates.captions), len(self.scores)
        try:
            values = np.asarray(self._given.values(candidates), np.float64)
        except (TypeError, ValueError) as error:
            raise ScoreError(
                f"{self._name}.values failed: {error}", f"Return {images} numbers, one for each image."
            ) from error
        if values.shape == (images,):
            values = values[:, None]
        if values.shape != (images, scores):
            raise ScoreError(
                f"{self._name}.values returned an array of shape {values.shape} for {images} images and {scores} "
                f"score{'s' if scores > 1 else ''}.",
                f"Return numbers of shape ({images}, {scores}), one row for each image.",
            )
        return values
