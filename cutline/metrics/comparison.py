"""Is one run better than another? Paired tests over the same images, and the images that moved most."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cutline.core.errors import ScoreError
from cutline.core.progress import Bars, silent
from cutline.metrics import significance
from cutline.metrics.base import Candidates, Factory, Floats, References
from cutline.metrics.scorer import Caption, Options, Scorer, missing_warning
from cutline.metrics.text.tokenize import Tokenizer

if TYPE_CHECKING:
    from rich.table import Table

_EQUAL = 1e-12


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One score of two systems on the same images.

    Attributes:
        metric: the score's name; ``a``, ``b``: the systems' names, and their values.
        difference: of b and a, with its 95 % interval ``low`` … ``high`` (paired bootstrap).
        p_bootstrap, p_randomisation: two-sided p-values of paired bootstrap and paired approximate randomisation.
        wins, ties, losses: images where b does better, the same, worse; for most scores more is better, for some less.
        signature: of b's score.
        lower_is_better: whether less of this score is better.
    """

    metric: str
    a: str
    b: str
    value_a: float
    value_b: float
    difference: float
    low: float
    high: float
    p_bootstrap: float
    p_randomisation: float
    wins: int
    ties: int
    losses: int
    signature: str
    lower_is_better: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def gain(self) -> float:
        """By how much b is better than a."""
        return -self.difference if self.lower_is_better else self.difference


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
        warnings: what to mind.
    """

    systems: tuple[str, ...]
    differences: tuple[Difference, ...]
    moved: tuple[Moved, ...]
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "systems": list(self.systems),
            "differences": [found.to_json() for found in self.differences],
            "moved": [found.to_json() for found in self.moved],
            "warnings": list(self.warnings),
        }


def compare(
    systems: Mapping[str, Mapping[str, Caption]],
    references: Mapping[str, Sequence[str]],
    metrics: Sequence[str | Factory] | None = None,
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
    candidates = {name: scorer.candidates(found, allow_missing) for name, found in systems.items()}
    statistics = {name: scorer.statistics(found) for name, found in candidates.items()}
    differences: list[Difference] = []
    moved: list[Moved] = []
    for name in others:
        found, changes = pair(scorer, (first, name), candidates, statistics)
        differences.extend(found)
        deciding = by if by in changes else next(iter(changes), None)
        if deciding is not None:
            sign = -1.0 if deciding in scorer.lower_is_better else 1.0
            moved.extend(_moved(scorer, (first, name), candidates, deciding, sign * changes[deciding], sign, most))
    warnings = scorer.warnings()
    for name, made in systems.items():
        warnings += [f"{name}: {text}" for text in missing_warning(len(known) - len(made), len(known))]
    for name in others:
        told = {row.metric for row in differences if row.b == name}
        warnings += [f"{name}: {text}" for text in scorer.left_out(told)]
    tests = len(differences)
    if tests > 1:
        warnings.append(f"{tests} tests were made: about one in twenty of equal systems' would fall below p = 0.05.")
    return Comparison(
        systems=tuple(systems), differences=tuple(differences), moved=tuple(moved), warnings=tuple(warnings)
    )


def pair(
    scorer: Scorer,
    names: tuple[str, str],
    candidates: Mapping[str, Candidates],
    statistics: Mapping[str, Floats],
) -> tuple[list[Difference], dict[str, Floats]]:
    """The differences of two systems, and for each score how much every image changed.

    Args:
        candidates, statistics: by the systems' names, what ``scorer.candidates`` and ``scorer.statistics`` gave.
    """
    a, b = names
    tested = significance.paired(
        statistics[a], statistics[b], scorer.reduce, scorer.groups, scorer.resamples, scorer.seed
    )
    value_a, value_b = scorer.reduce(statistics[a].sum(axis=0)), scorer.reduce(statistics[b].sum(axis=0))
    signatures = scorer.signatures(candidates[b])
    change = scorer.per_image(statistics[b]) - scorer.per_image(statistics[a])  # [n, K]
    found: list[Difference] = []
    changes: dict[str, Floats] = {}
    for k, name in enumerate(scorer.names):
        if not scorer.is_wanted(name) or np.isnan(tested.difference[k]):
            continue
        changes[name] = change[:, k]
        gain = -change[:, k] if name in scorer.lower_is_better else change[:, k]
        found.append(
            Difference(
                metric=name,
                a=a,
                b=b,
                value_a=float(value_a[k]),
                value_b=float(value_b[k]),
                difference=float(tested.difference[k]),
                low=float(tested.low[k]),
                high=float(tested.high[k]),
                p_bootstrap=float(tested.p_bootstrap[k]),
                p_randomisation=float(tested.p_randomisation[k]),
                wins=int((gain > _EQUAL).sum()),
                ties=int((np.abs(gain) <= _EQUAL).sum()),
                losses=int((gain < -_EQUAL).sum()),
                signature=signatures[name],
                lower_is_better=name in scorer.lower_is_better,
            )
        )
    return found, changes


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
    chosen = [place for place in order[:most] if gain[place] < -_EQUAL]
    chosen += [place for place in order[-most:] if most and gain[place] > _EQUAL]
    return [
        Moved(
            id=scorer.references.ids[place],
            metric=metric,
            a=names[0],
            b=names[1],
            change=sign * float(gain[place]),
            better=bool(gain[place] > 0),
            caption_a=candidates[names[0]].captions[place],
            caption_b=candidates[names[1]].captions[place],
            references=scorer.references.captions[place],
        )
        for place in chosen
    ]


def table(comparison: Comparison) -> Table:
    """The differences for people; narrow enough for a terminal of 80 columns when two systems are compared."""
    from rich import box
    from rich.table import Table

    several = len(comparison.systems) > 2
    first, second = comparison.systems[:2]
    title = f"compared with {first}" if several else f"{second} compared with {first}"
    found = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for name in ("system", "score") if several else ("score",):
        found.add_column(name, no_wrap=True)
    for name in ("value", "change", "95 % interval", "p boot", "p rand", "win/tie/loss"):
        found.add_column(name, justify="right", no_wrap=True)
    for row in comparison.differences:
        cells = (
            row.metric,
            f"{row.value_b:.4f}",
            f"{row.difference:+.4f}",
            f"{row.low:+.3f} – {row.high:+.3f}",
            f"{row.p_bootstrap:.3f}",
            f"{row.p_randomisation:.3f}",
            f"{row.wins}/{row.ties}/{row.losses}",
        )
        found.add_row(*((row.b, *cells) if several else cells))
    return found
