"""Is one run better than another? Paired tests over the same images, and the images that changed most."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cutline.core.errors import ScoreError
from cutline.core.progress import Bars, silent
from cutline.metrics.base import Candidates, Floats, References
from cutline.metrics.custom import Given
from cutline.metrics.difference import EQUAL, Difference, paired_differences
from cutline.metrics.scorer import Caption, Options, Scorer, missing_warning
from cutline.metrics.text.tokenize import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Moved:
    """An image whose score differs much: ``change`` is b's value minus a's; ``better``: whether b did better."""

    id: str
    metric: str
    a: str
    b: str
    change: float
    better: bool
    caption_a: str
    caption_b: str
    references: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Every system against the first.

    Attributes:
        systems: the names, the first being what the others are compared with.
        differences: score by score, system by system.
        moved: for each later system, the images that gained and lost most, by the first score.
        warnings: one sentence each.
    """

    systems: tuple[str, ...]
    differences: tuple[Difference, ...]
    moved: tuple[Moved, ...]
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "systems": list(self.systems),
            "differences": [row.to_json() for row in self.differences],
            "moved": [row.to_json() for row in self.moved],
            "warnings": list(self.warnings),
        }


def compare(
    systems: Mapping[str, Mapping[str, Caption]],
    references: Mapping[str, Sequence[str]],
    metrics: Sequence[str | Given] | None = None,
    groups: Mapping[str, Hashable] | Sequence[Hashable] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    most: int = 5,
    by: str = "cider",
    allow_missing: bool = False,
    tokenizer: Tokenizer | None = None,
    options: Options | None = None,
    images: Mapping[str, str | Path] | None = None,
    training: Sequence[str] = (),
    contexts: Mapping[str, str] | None = None,
    bars: Bars = silent,
) -> Comparison:
    """Compares systems with the first of them.

    Args:
        systems: name → predictions, two at least; the rest as for :func:`cutline.metrics.scorer.score`.
        most: how many images that gained, and that lost, most to list for each pair of systems.
        by: the score that decides about those; the first one where it is not computed.
        training: the captions of the training images, for what asks whether a caption is new.
        contexts: image id → the text that stood in the prompt, for what asks whether a caption echoes it.

    Raises:
        ScoreError: fewer than two systems, no resamples, or what :func:`cutline.metrics.scorer.score` raises.
    """
    if len(systems) < 2:
        raise ScoreError("There is nothing to compare.", "Give the predictions of two systems or more.")
    if resamples < 1:
        raise ScoreError(f"A test needs resamples, not {resamples}.", "Give at least 1; 1000 is usual.")
    known = References(references, tokenizer, training, contexts, images)
    scorer = Scorer(known, metrics, groups=groups, resamples=resamples, seed=seed, options=options, bars=bars)
    first, *others = systems
    candidates = {name: scorer.candidates(captions, allow_missing) for name, captions in systems.items()}
    statistics = {name: scorer.statistics(captions) for name, captions in candidates.items()}
    differences: list[Difference] = []
    moved: list[Moved] = []
    for name in others:
        tested, changes = paired_differences(scorer, (first, name), candidates, statistics)
        differences.extend(tested)
        deciding = by if by in changes else next(iter(changes), None)
        if deciding is not None:
            sign = -1.0 if scorer.info[deciding].lower_is_better else 1.0
            moved.extend(_moved(scorer, (first, name), candidates, deciding, sign * changes[deciding], sign, most))
    warnings = scorer.warnings()
    for name, captions in systems.items():
        warnings += [f"{name}: {text}" for text in missing_warning(len(known) - len(captions), len(known))]
    for name in others:
        compared = {row.metric for row in differences if row.b == name}
        warnings += [f"{name}: {text}" for text in scorer.left_out(compared)]
    tests = len(differences)
    if tests > 1:
        warnings.append(f"{tests} tests were made: of equal systems, about one test in twenty gives p < 0.05.")
    return Comparison(
        systems=tuple(systems), differences=tuple(differences), moved=tuple(moved), warnings=tuple(warnings)
    )


def _moved(
    scorer: Scorer,
    names: tuple[str, str],
    candidates: Mapping[str, Candidates],
    metric: str,
    gain: Floats,
    sign: float,
    most: int,
) -> list[Moved]:
    """The images that lost most, most first, then those that gained most, most last; ``sign`` · gain is the change."""
    order = np.argsort(gain, kind="stable").tolist()
    chosen = [image for image in order[:most] if gain[image] < -EQUAL]
    chosen += [image for image in order[-most:] if most and gain[image] > EQUAL]
    return [
        Moved(
            id=scorer.references.ids[image],
            metric=metric,
            a=names[0],
            b=names[1],
            change=sign * float(gain[image]),
            better=bool(gain[image] > 0),
            caption_a=candidates[names[0]].captions[image],
            caption_b=candidates[names[1]].captions[image],
            references=scorer.references.captions[image],
        )
        for image in chosen
    ]
