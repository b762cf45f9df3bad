"""Two systems on the same images: how much each score differs, by paired tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cutline.core.records import ScoreInfo
from cutline.metrics import significance
from cutline.metrics.base import Candidates, Floats
from cutline.metrics.scorer import Scorer

#: Values that differ by no more than this are ties.
EQUAL = 1e-12


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One score of two systems on the same images.

    Attributes:
        metric: the score's name; ``a``, ``b``: the systems' names, and their values.
        difference: of b and a, with its 95 % interval ``low`` … ``high`` (paired bootstrap).
        p_bootstrap, p_randomisation: two-sided p-values of paired bootstrap and paired approximate randomisation.
        wins, ties, losses: images where b does better, the same, worse; for most scores more is better, for some less.
        signature: of b's score.
        info: label, meaning, unit and direction of the score.
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
    info: ScoreInfo

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Difference:
        return cls(**{**row, "info": ScoreInfo(**row["info"])})

    @property
    def gain(self) -> float:
        """By how much b is better than a."""
        return -self.difference if self.info.lower_is_better else self.difference


def paired_differences(
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
    differences: list[Difference] = []
    changes: dict[str, Floats] = {}
    for k, name in enumerate(scorer.names):
        if not scorer.is_wanted(name) or np.isnan(tested.difference[k]):
            continue
        changes[name] = change[:, k]
        info = scorer.info[name]
        gain = -change[:, k] if info.lower_is_better else change[:, k]
        differences.append(
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
                wins=int((gain > EQUAL).sum()),
                ties=int((np.abs(gain) <= EQUAL).sum()),
                losses=int((gain < -EQUAL).sum()),
                signature=signatures[name],
                info=info,
            )
        )
    return differences, changes
