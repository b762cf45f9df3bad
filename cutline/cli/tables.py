"""Output of several verbs on stdout: JSON and tables of scores."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cutline.cli.terminal import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from cutline.core.records import ScoreInfo
    from cutline.core.run_folder import RunFolder
    from cutline.metrics.comparison import Comparison
    from cutline.metrics.evaluation import Evaluation


def print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))


def show_scores(evaluation: Evaluation | None) -> None:
    """Prints a table of scores, if there are any, and warnings on stderr."""
    if evaluation is None:
        return
    from rich.console import Console

    Console().print(scores_table(evaluation))
    show_warnings(evaluation.warnings)


def show_warnings(warnings: Sequence[str]) -> None:
    for warning in warnings:
        say(f"warning: {warning}")


def all_captioned(folder: RunFolder) -> bool:
    """Whether every image of a run has a caption; prints how many have none."""
    marker = folder.stage("caption")
    if not marker.get("failed"):
        return True
    say(f"{marker['failed']} of {marker['images']} images have no caption; {folder / 'predictions.jsonl'} says why")
    return False


def scores_table(evaluation: Evaluation) -> Table:
    """Each score with its interval and the values of the baselines; shares in per cent."""
    from textwrap import wrap

    from rich.table import Table

    table = Table(title=f"{evaluation.counts.get('images', 0):,} images", title_justify="left")
    table.add_column("score")  # the only column that wraps in a narrow terminal: numbers are never cut
    table.add_column("value", justify="right", no_wrap=True)
    has_intervals = any(score.low != score.high for score in evaluation.scores.values())
    if has_intervals:
        table.add_column("95 % interval", justify="right", no_wrap=True)
    for name in evaluation.baselines:
        table.add_column("\n".join(wrap(name, 9)), justify="right", no_wrap=True)
    for name, score in evaluation.scores.items():
        others = [scores.get(name) for scores in evaluation.baselines.values()]
        table.add_row(
            heading(score.info),
            score.info.format(score.value, 4),
            *([f"{score.info.format(score.low)}–{score.info.format(score.high)}"] if has_intervals else []),
            *(score.info.format(other.value, 4) if other else "" for other in others),
        )
    return table


def comparison_table(comparison: Comparison) -> Table:
    """The differences; fits into 80 columns when two systems are compared."""
    from rich import box
    from rich.table import Table

    several = len(comparison.systems) > 2
    first, second = comparison.systems[:2]
    title = f"compared with {first}" if several else f"{second} compared with {first}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for name in ("system", "score") if several else ("score",):
        table.add_column(name, no_wrap=True)
    for name in ("value", "change", "95 % interval", "p boot", "p rand", "win/tie/loss"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in comparison.differences:
        cells = (
            heading(row.info),
            row.info.format(row.value_b, 4),
            signed(row.info, row.difference, 4),
            f"{signed(row.info, row.low)} – {signed(row.info, row.high)}",
            f"{row.p_bootstrap:.3f}",
            f"{row.p_randomisation:.3f}",
            f"{row.wins}/{row.ties}/{row.losses}",
        )
        table.add_row(*((row.b, *cells) if several else cells))
    return table


def heading(info: ScoreInfo) -> str:
    """A score's label, its unit, and an arrow where lower is better."""
    unit = {"share": " %", "words": " (words)"}.get(info.unit, "")
    return f"{info.label}{unit}{' ↓' if info.lower_is_better else ''}"


def signed(info: ScoreInfo, value: float, digits: int = 3) -> str:
    """A change of a score, with its sign."""
    return f"{'+' if value >= 0 else ''}{info.format(value, digits)}"
