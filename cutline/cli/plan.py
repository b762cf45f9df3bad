"""``cutline plan``: a recipe in, a table of parameters or JSON out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from cutline.core.config import load
from cutline.run.run import Recipe
from cutline.train.plan import Plan, plan

_TITLES = {"none": "nothing is trained", "align": "first stage: \\[train.align]", "train": "what is trained"}


def run(recipe: Path, changes: Sequence[str], as_json: bool) -> None:
    """Counts what a recipe would train, and prints it on stdout."""
    wanted = load(recipe, Recipe, changes)
    stages = plan(wanted.model, wanted.train)
    if as_json:
        print(json.dumps([stage.to_json() for stage in stages], indent=2))
        return
    for stage in stages:
        _show(stage)


def _show(stage: Plan) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=_TITLES[stage.stage])
    for column in ("part", "policy"):
        table.add_column(column)
    for column in ("parameters", "trainable", "adapters"):
        table.add_column(column, justify="right")
    for line in stage.parts:
        adapters = f"{line.adapters:,}" if line.adapters else ""
        table.add_row(line.part, line.policy, f"{line.parameters:,}", f"{line.trainable:,}", adapters)
    share = f"{stage.trainable / stage.parameters:.2%}"
    table.add_row("all", share, f"{stage.parameters:,}", f"{stage.trainable:,}", "", style="bold")
    Console().print(table)
