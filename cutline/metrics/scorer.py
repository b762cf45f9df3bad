"""Scores of captions, with intervals and signatures.

:func:`score` answers in one call; :class:`Scorer` indexes the references once for many calls (validation loops).
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Container, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cutline.core.config import Section, parse
from cutline.core.errors import ScoreError, ScoreWarning
from cutline.core.progress import Bars, silent
from cutline.core.records import Prediction, Score, ScoreInfo
from cutline.metrics import find, significance
from cutline.metrics.base import Candidates, Metric, References, some
from cutline.metrics.custom import Given, build
from cutline.metrics.settings import DEFAULT
from cutline.metrics.text.ptb import LINE_BREAKS
from cutline.metrics.text.tokenize import Tokenizer

Floats = NDArray[np.float64]
#: A caption as text, as a record, or None; or several captions of an image, of which the first is scored.
Caption = str | Prediction | Sequence[str] | None
#: Metric → its settings: an object of them, or those that differ from the defaults.
Options = Mapping[str, Section | Mapping[str, Any]]


def score(
    predictions: Mapping[str, Caption],
    references: Mapping[str, Sequence[str]],
    metrics: Sequence[str | Given] | None = None,
    groups: Mapping[str, Hashable] | Sequence[Hashable] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    allow_missing: bool = False,
    tokenizer: Tokenizer | None = None,
    options: Options | None = None,
    images: Mapping[str, str | Path] | None = None,
) -> dict[str, Score]:
    """Scores one caption for each image.

    Args:
        predictions: image id → caption (text or :class:`Prediction`). No caption counts as an empty one: zero. Of
            several captions of an image the first is scored; only ``self_bleu`` looks at all of them.
        references: image id → captions, at least one. Their order is the order of ``per_image``.
        metrics: names of metrics ("bleu") or scores ("bleu4"), and metrics of your own: see
            :mod:`cutline.metrics.custom`. None: the usual ones.
        groups: image id → group, or one group for each image: images of a group are resampled together.
        resamples: for the 95 % intervals; 0: none (low = high = value).
        allow_missing: score images without a prediction as empty instead of refusing.
        options: metric → its settings, ``{"clipscore": {"model": "openai/clip-vit-large-patch14"}}``.
        images: image id → its file, for metrics that look at the images.

    Returns:
        Score's name → :class:`Score`. A score that can't be known from the predictions (``unfinished`` of plain texts)
        is left out.

    Warns:
        ScoreWarning: a score is hard to compare (CIDEr of few images), or was asked for and left out.

    Raises:
        ScoreError: ids don't match; a metric is unknown, or lacks what it needs; an image has no reference.
        RecipeError: a metric doesn't have one of the options.
    """
    known = References(references, tokenizer, images=images)
    scorer = Scorer(known, metrics, groups=groups, resamples=resamples, seed=seed, options=options)
    scores = scorer.score(predictions, allow_missing=allow_missing)
    missing = missing_warning(len(known) - len(predictions), len(known))
    for text in [*scorer.warnings(), *missing, *scorer.left_out(scores)]:
        warnings.warn(text, ScoreWarning, stacklevel=2)
    return scores


class Scorer:
    """Scores many sets of predictions against the same references, which are tokenised and indexed once.

    Args: as for :func:`score`, and
        bars: shows the progress of metrics that take long.

    Raises:
        ScoreError: as for :func:`score`.
    """

    def __init__(
        self,
        references: Mapping[str, Sequence[str]] | References,
        metrics: Sequence[str | Given] | None = None,
        *,
        groups: Mapping[str, Hashable] | Sequence[Hashable] | None = None,
        resamples: int = 1000,
        seed: int = 0,
        tokenizer: Tokenizer | None = None,
        options: Options | None = None,
        bars: Bars = silent,
    ):
        self.references = references if isinstance(references, References) else References(references, tokenizer)
        self.resamples = resamples
        self.seed = seed
        self.groups = _groups(groups, self.references.ids)
        chosen = DEFAULT if metrics is None else tuple(metrics)
        self.chosen = chosen
        wanted = find.resolve([name for name in chosen if isinstance(name, str)])
        self.options = _options(options or {})
        self.metrics: list[Metric] = [
            find.load(name)(self.references, *([self.options[name]] if name in self.options else ())) for name in wanted
        ]
        self._widths: list[int] = []
        self._wanted = {score for scores in wanted.values() for score in scores}
        for given in chosen:
            if not isinstance(given, str):
                metric = build(given, self.references)
                self.metrics.append(metric)
                self._wanted.update(score.name for score in metric.scores)
        self.bars = bars
        for metric in self.metrics:
            metric.bars = bars
        if twice := [name for name, count in Counter(self.names).items() if count > 1]:
            raise ScoreError(f"Several metrics return a score named {twice[0]}.", "Give each score its own name.")

    def candidates(self, predictions: Mapping[str, Caption], allow_missing: bool = False) -> Candidates:
        """The predictions in the order of the references.

        Raises:
            ScoreError: ids are missing (unless allowed) or extra.
        """
        ids = self.references.ids
        check_ids(predictions, ids, allow_missing)
        found = [predictions.get(name) for name in ids]
        records = [item for item in found if isinstance(item, Prediction)]
        all_texts = [_texts(item) for item in found]
        several = all_texts if any(len(texts) > 1 for texts in all_texts) else None
        texts = [texts[0] if texts else "" for texts in all_texts]
        if not records:
            return self.references.candidates(texts, several=several)
        failed = "no prediction"
        known = [
            item
            if isinstance(item, Prediction)
            else Prediction(id=name, caption=text or None, status="failed", error=failed)
            for name, item, text in zip(ids, found, texts, strict=True)
        ]
        return self.references.candidates(texts, known, several)

    @property
    def names(self) -> tuple[str, ...]:
        """The K scores of all metrics, also those that nobody asked for."""
        return tuple(score.name for metric in self.metrics for score in metric.scores)

    @property
    def info(self) -> dict[str, ScoreInfo]:
        """Score's name → its label, meaning, unit and direction."""
        return {score.name: score for metric in self.metrics for score in metric.scores}

    @property
    def comparing(self) -> frozenset[str]:
        """The scores that compare captions with references or images, so that baselines have them."""
        return frozenset(score.name for metric in self.metrics if metric.compares for score in metric.scores)

    def is_wanted(self, name: str) -> bool:
        """Whether a score was asked for; a metric may yield others beside it."""
        return name in self._wanted

    def statistics(self, candidates: Candidates) -> Floats:
        """All metrics' statistics side by side, [n, S]."""
        parts = [metric.statistics(candidates) for metric in self.metrics]
        self._widths = [part.shape[1] for part in parts]
        return np.concatenate(parts, axis=1)

    def reduce(self, sums: Floats) -> Floats:
        """Values [..., K] of summed :meth:`statistics` [..., S]."""
        return np.concatenate([metric.reduce(part) for metric, part in self._parts(sums)], axis=-1)

    def per_image(self, statistics: Floats) -> Floats:
        """Each image's values, [n, K]."""
        return np.concatenate([metric.per_image(part) for metric, part in self._parts(statistics)], axis=-1)

    def signatures(self, candidates: Candidates) -> dict[str, str]:
        """Score's name → its signature."""
        return {
            score.name: metric.signature(score.name, candidates) for metric in self.metrics for score in metric.scores
        }

    def _parts(self, statistics: Floats) -> list[tuple[Metric, Floats]]:
        """Each metric with its columns."""
        ends = np.cumsum(self._widths)[:-1]
        return list(zip(self.metrics, np.split(statistics, ends, axis=-1), strict=True))

    def values(self, predictions: Mapping[str, Caption]) -> dict[str, float]:
        """Score's name → value, without intervals: for validation loops."""
        values = self.reduce(self.statistics(self.candidates(predictions)).sum(axis=0)).tolist()
        named = zip(self.names, values, strict=True)
        return {name: value for name, value in named if name in self._wanted and not np.isnan(value)}

    def score(self, predictions: Mapping[str, Caption], allow_missing: bool = False) -> dict[str, Score]:
        """See :func:`score`."""
        return self.score_candidates(self.candidates(predictions, allow_missing))

    def with_references(self, references: Mapping[str, Sequence[str]]) -> Scorer:
        """The same metrics, settings and groups with other references of all or some of the images."""
        groups = dict(zip(self.references.ids, self.groups, strict=True)) if self.groups else None
        return Scorer(
            self.references.with_captions(references),
            self.chosen,
            groups=groups,
            resamples=self.resamples,
            seed=self.seed,
            options=self.options,
            bars=self.bars,
        )

    def score_candidates(
        self, candidates: Candidates, only_comparing: bool = False, statistics: Floats | None = None
    ) -> dict[str, Score]:
        """Scores what :meth:`candidates` gave.

        Args:
            only_comparing: leave metrics out that don't compare captions with references (lengths, empties).
            statistics: what :meth:`statistics` gave for these candidates, where it is known.
        """
        if not self.metrics:
            return {}
        statistics = self.statistics(candidates) if statistics is None else statistics
        drawn: list[Floats] = []
        if self.resamples:
            rows = significance.group_sums(statistics, self.groups)
            drawn = [part for _, part in self._parts(significance.resampled(rows, self.resamples, self.seed))]
        scores = {}
        for position, (metric, part) in enumerate(self._parts(statistics)):
            if only_comparing and not metric.compares:
                continue
            values = metric.reduce(part.sum(axis=0))
            low, high = significance.interval(metric.reduce(drawn[position])) if drawn else (values, values)
            single = metric.per_image(part)
            for k, info in enumerate(metric.scores):
                name = info.name
                if name in self._wanted and not np.isnan(values[k]):
                    scores[name] = Score(
                        metric=name,
                        value=float(values[k]),
                        low=float(low[k]),
                        high=float(high[k]),
                        n=len(self.references),
                        signature=metric.signature(name, candidates),
                        per_image=tuple(single[:, k].tolist()),
                        info=info,
                    )
        return scores

    def left_out(self, scores: Container[str]) -> list[str]:
        """Which of the scores asked for can't be computed, and why; nothing where the usual ones were taken."""
        if self.chosen == DEFAULT:
            return []
        return [
            f"{info.name} was left out: {metric.unknown.get(info.name, 'its value is not defined here')}."
            for metric in self.metrics
            for info in metric.scores
            if info.name in self._wanted and info.name not in scores
        ]

    def warnings(self) -> list[str]:
        """What makes the scores on these references hard to compare, each sentence once."""
        captions = [text for texts in self.references.captions for text in texts]
        found = [*broken_lines(captions, "reference captions")]
        found.extend(text for metric in self.metrics for text in metric.warnings())
        return list(dict.fromkeys(found))


def _texts(caption: Caption) -> list[str]:
    """All captions of one image."""
    if isinstance(caption, Prediction):
        caption = caption.caption
    if isinstance(caption, str):
        return [caption] if caption else []
    return list(caption or ())


def _options(options: Options) -> dict[str, Section]:
    """The settings of metrics, checked."""
    known = find.configurable()
    if wrong := [name for name in options if name not in known]:
        raise ScoreError(f"There are no options for {wrong[0]}.", f"These metrics have options: {', '.join(known)}.")
    return {
        name: given if isinstance(given, Section) else parse(given, known[name], where=f"options of {name}")
        for name, given in options.items()
    }


def missing_warning(missing: int, images: int) -> list[str]:
    """A warning when images have no prediction."""
    return [f"{missing} of {images} images have no prediction and were scored as empty."] if missing > 0 else []


def broken_lines(captions: Sequence[str], what: str) -> list[str]:
    """A warning when captions contain characters that end a line."""
    many = sum(1 for caption in captions if not caption.isprintable() and LINE_BREAKS.search(caption))
    return [f"{many} {what} contain characters that end a line; each was read as a space."] if many else []


def check_ids(predictions: Mapping[str, object], ids: Sequence[str], allow_missing: bool = False) -> list[str]:
    """Compares the predictions' ids with the references'.

    Returns:
        The ids without a prediction (only when they are allowed).

    Raises:
        ScoreError: ids are missing (unless allowed) or extra.
    """
    known = set(ids)
    extra = [str(name) for name in predictions if name not in known]
    if extra:
        raise ScoreError(
            f"{len(extra)} of {len(predictions)} predictions have no reference: {some(extra)}.",
            "Score against the references of these predictions, remove the extra rows, or pass --allow-extra.",
        )
    missing = [name for name in ids if name not in predictions]
    if missing and not allow_missing:
        raise ScoreError(
            f"{len(missing)} of {len(ids)} images have no prediction: {some(missing)}.",
            "Caption the missing images, or allow missing ones (--allow-missing), which scores them as empty.",
        )
    return missing


def _groups(
    groups: Mapping[str, Hashable] | Sequence[Hashable] | None, ids: Sequence[str]
) -> tuple[Hashable, ...] | None:
    """One group an image, in the order of the ids; an image that a mapping doesn't name is its own group."""
    if groups is None:
        return None
    if isinstance(groups, Mapping):
        return tuple(groups.get(name, ("", name)) for name in ids)
    if len(groups) != len(ids):
        raise ScoreError(f"There are {len(groups)} groups for {len(ids)} images.", "Give one group for each image.")
    return tuple(groups)
