"""What a metric is: statistics per image, a reduction of their sums to values, and a signature.

A metric is one file in this folder with one subclass of :class:`Metric`, which declares its ``scores``.
:mod:`cutline.metrics.find` finds it by the file's name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cutline.core.config import Section
from cutline.core.errors import ScoreError
from cutline.core.progress import Bars, silent
from cutline.core.records import Prediction, ScoreInfo
from cutline.metrics.text.ngrams import CandidateNgrams, ReferenceNgrams
from cutline.metrics.text.tokenize import Tokenizer, default

Floats = NDArray[np.float64]


class References:
    """The reference captions of n images, tokenised and indexed once, however many candidates are scored against them.

    Args:
        captions: image id → its captions, at least one each. The order of the ids is the order of everything else.
        tokenizer: see :mod:`cutline.metrics.text.tokenize`.
        training: the captions of the training images, for metrics of novelty.
        contexts: image id → the context in its prompt, for metrics of echoed prompts.
        images: image id → its file, for metrics that look at the images.

    Raises:
        ScoreError: no image, or an image without a caption.
    """

    def __init__(
        self,
        captions: Mapping[str, Sequence[str]],
        tokenizer: Tokenizer | None = None,
        training: Sequence[str] = (),
        contexts: Mapping[str, str] | None = None,
        images: Mapping[str, str | Path] | None = None,
    ):
        if not captions:
            raise ScoreError("There are no references.", "Give at least one image with its captions.")
        wrong = [name for name, texts in captions.items() if isinstance(texts, str) or not len(texts)]
        if wrong:
            raise ScoreError(
                f"{len(wrong)} of {len(captions)} images have no list of captions: {some(wrong)}.",
                "Give each image a list with one caption or more, or leave the image out.",
            )
        self.ids = tuple(captions)
        self.captions = [tuple(texts) for texts in captions.values()]
        self.tokenizer = tokenizer or default()
        self.training = training
        self.contexts = contexts or {}
        self.images = images or {}
        self.per_image = np.array([len(texts) for texts in self.captions], np.int64)  # [n]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def tokens(self) -> list[str]:
        """All captions, image by image, each as tokens with spaces between them."""
        return self.tokenizer([caption for texts in self.captions for caption in texts])

    @cached_property
    def ngrams(self) -> ReferenceNgrams:
        return ReferenceNgrams(self.tokens, self.per_image)

    @cached_property
    def training_tokens(self) -> frozenset[str]:
        return frozenset(self.tokenizer(self.training))

    @cached_property
    def context_tokens(self) -> list[str]:
        """The images' contexts as tokens, "" where there is none; empty when no image has one."""
        return self.tokenizer([self.contexts.get(name, "") for name in self.ids]) if self.contexts else []

    def candidates(
        self,
        captions: Sequence[str],
        predictions: Sequence[Prediction] | None = None,
        several: Sequence[Sequence[str]] | None = None,
    ) -> Candidates:
        """One caption for each image, in the order of the ids; "" where there is none.

        Args:
            predictions: the records that the captions come from, where there are any.
            several: all captions of each image, where there are several; the first of them is the one scored.
        """
        return Candidates(self, captions, predictions, several)

    def with_captions(self, captions: Mapping[str, Sequence[str]]) -> References:
        """The same with other captions, of all or some of the images."""
        return References(captions, self.tokenizer, self.training, self.contexts, self.images)


class Candidates:
    """One candidate caption for each image of some references.

    Attributes:
        references: the :class:`References`.
        captions: one text for each image, in the order of ``references.ids``; "" where there is none.
        predictions: the records that the captions come from; None where they are plain texts.
        several: all captions of each image; None where each has only one.
    """

    def __init__(
        self,
        references: References,
        captions: Sequence[str],
        predictions: Sequence[Prediction] | None = None,
        several: Sequence[Sequence[str]] | None = None,
    ):
        assert len(captions) == len(references)
        self.references = references
        self.captions = captions
        self.predictions = predictions
        self.several = several

    @cached_property
    def tokens(self) -> list[str]:
        return self.references.tokenizer(self.captions)

    @cached_property
    def ngrams(self) -> CandidateNgrams:
        return self.references.ngrams.join(self.tokens)

    @property
    def empty(self) -> int:
        """Number of candidates without text."""
        return sum(1 for caption in self.captions if not caption.strip())


class Metric(ABC):
    """One metric over fixed references. Its values depend on the images' statistics through their (weighted) sums only,

    so resampling images is a matrix product, and one bootstrap and one paired test serve all metrics.

    A metric with settings names their type in ``settings_type`` and takes an object of it; these are the keys of the
    recipe's section ``[score.<metric>]``.

    Attributes:
        scores: name, label, meaning, unit and direction of each of the K values.
        settings_type: of its settings; None without settings.
        version: counted up when a value could change.
        uses_tokens: whether the tokenizer matters.
        compares: whether captions are compared with references or images, so that baselines are worth scoring.
        bars: shows progress; a Scorer hands in its own.
        unknown: score → why its value can't be known, where it is NaN; the second half of a sentence.
    """

    scores: ClassVar[tuple[ScoreInfo, ...]]
    settings_type: ClassVar[type[Section] | None] = None
    version: ClassVar[int] = 1
    uses_tokens: ClassVar[bool] = True
    compares: ClassVar[bool] = True
    unknown: ClassVar[Mapping[str, str]] = {}

    def __init__(self, references: References, settings: Section | None = None):
        self.references = references
        self.bars: Bars = silent

    @classmethod
    def check(cls, settings: Any) -> None:
        """Checks that what the metric needs besides captions is there: before hours of training, not after.

        Args:
            settings: of the type ``settings_type``; None where the metric has no settings.

        Raises:
            ScoreError: a checkpoint, a program or a file is missing.
        """
        return

    @abstractmethod
    def statistics(self, candidates: Candidates) -> Floats:
        """float64 [n, S], a row an image."""

    @abstractmethod
    def reduce(self, sums: Floats) -> Floats:
        """Values [..., K] of summed statistics [..., S]; NaN where a value can't be known."""

    def per_image(self, statistics: Floats) -> Floats:
        """Values of each image by itself, [n, K]."""
        return self.reduce(statistics)

    def facts(self) -> dict[str, str]:
        """Further parts of the signature: smoothing, parameters, sources."""
        return {}

    def warnings(self) -> list[str]:
        """What makes the scores on these references hard to compare, one sentence each."""
        return []

    def signature(self, score: str, candidates: Candidates) -> str:
        """``score|v:…|key:value|…``: everything besides the captions that the number depends on."""
        least, most = int(self.references.per_image.min()), int(self.references.per_image.max())
        parts = {"v": str(self.version)}
        if self.uses_tokens:
            parts |= {"tok": self.references.tokenizer.name, "case": self.references.tokenizer.case}
        parts["refs"] = str(least) if least == most else f"{least}-{most}"
        parts |= self.facts()
        parts |= {"images": str(len(self.references)), "empty": str(candidates.empty)}
        return "|".join([score, *(f"{key}:{value}" for key, value in parts.items())])


class MeanMetric(Metric):
    """A metric whose values are means over the images of the numbers that :meth:`values` gives."""

    @abstractmethod
    def values(self, candidates: Candidates) -> Floats:
        """float64 [n, K]."""

    def statistics(self, candidates: Candidates) -> Floats:
        values = self.values(candidates)
        statistics: Floats = np.concatenate([values, np.ones((len(values), 1))], axis=1)
        return statistics

    def reduce(self, sums: Floats) -> Floats:
        return ratio(sums[..., :-1], sums[..., -1:])


def ratio(above: Floats, below: Floats) -> Floats:
    """above / below, NaN where below is 0."""
    result: Floats = np.full(np.broadcast(above, below).shape, np.nan)
    return np.divide(above, below, out=result, where=below != 0)


def some(names: Sequence[str], most: int = 5) -> str:
    """The first few of many names, for a message."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
