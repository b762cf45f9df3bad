"""Tables of scores and comparisons, and the messages at the end of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cutline.cli.terminal import say
from cutline.core.records import ScoreInfo
from cutline.core.run_folder import RunFolder
from cutline.metrics.comparison import Comparison
from cutline.metrics.evaluation import Evaluation

if TYPE_CHECKING:
    from rich.table import Table


def show(evaluation: Evaluation | None, folder: Path, captioned: bool = True) -> bool:
    """Prints a run's scores on stdout, and warnings and failed images on stderr.

    Args:
        captioned: whether this run captioned.

    Returns:
        Whether every image that it captioned has a caption.
    """
    if evaluation is not None:
        from rich.console import Console

        Console().print(scores_table(evaluation))
        for warning in evaluation.warnings:
            say(f"warning: {warning}")
    known = RunFolder(folder).stage("caption")
    if captioned and known.get("failed"):
        say(f"{known['failed']} of {known['images']} images have no caption; {folder}/predictions.jsonl says why")
        return False
    return True


def scores_table(evaluation: Evaluation) -> Table:
    """Each score with its interval and the baselines' values beside it; shares in per cent."""
    from rich.table import Table

    table = Table(title=f"{evaluation.counts.get('images', 0):,} images", title_justify="left")
    table.add_column("score", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    has_intervals = any(score.low != score.high for score in evaluation.scores.values())
    if has_intervals:
        table.add_column("95 % interval", justify="right", no_wrap=True)
    for name in evaluation.baselines:
        table.add_column(name, justify="right")
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
