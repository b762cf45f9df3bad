"""``cutline plan``: the numbers of parameters that a recipe would train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cutline.cli.options import Json, RecipePath, RecipeSet

if TYPE_CHECKING:
    from cutline.train.plan import Plan

_TITLES = {"none": "nothing is trained", "align": "first stage: \\[train.align]", "train": "what is trained"}


def plan(recipe: RecipePath, overrides: RecipeSet = [], as_json: Json = False) -> None:
    """Count the parameters of each part of a recipe's model, all and trained ones, without loading its weights.

    The configurations of the checkpoints that Cutline's recipes name are built in: nothing is downloaded for them.
    """
    from cutline.cli.tables import print_json
    from cutline.core.config import load
    from cutline.run.recipe import Recipe
    from cutline.train.plan import plan as plan_stages

    loaded = load(recipe, Recipe, overrides)
    stages = plan_stages(loaded.model, loaded.train)
    if as_json:
        print_json([stage.to_json() for stage in stages])
        return
    for stage in stages:
        _show(stage)


def _show(stage: Plan) -> None:
    from rich.console import Console
    from rich.table import Table

    from cutline.train.trainable import part_rows

    table = Table(title=_TITLES[stage.stage])
    for column in ("part", "policy"):
        table.add_column(column)
    for column in ("parameters", "trainable", "adapters"):
        table.add_column(column, justify="right")
    *parts, total = part_rows(stage.parts)
    for row in parts:
        table.add_row(*row)
    table.add_row(*total, style="bold")
    Console().print(table)
