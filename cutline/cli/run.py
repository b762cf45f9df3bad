"""``cutline run``: all stages of a recipe."""

from __future__ import annotations

from typing import Annotated

import typer

from cutline.cli.options import RecipePath, RecipeSet, RunOut, Tiny, listed


def run(
    recipe: RecipePath,
    out: RunOut = None,
    overrides: RecipeSet = [],
    tiny: Tiny = False,
    only: Annotated[
        str, typer.Option(help="Only these stages, separated by commas: prepare,train,caption,score,report …")
    ] = "",
    show_config: Annotated[bool, typer.Option("--show-config", help="Print the resolved recipe and exit.")] = False,
) -> None:
    """Do everything that a recipe asks for: prepare, train, caption, score, report.

    Finished stages are skipped, interrupted ones resume, and outputs that a changed recipe replaces are moved to
    superseded/ in the run folder. A run that was started with --tiny continues as a tiny one. Exit code 1 when images
    could not be captioned.
    """
    from cutline.cli.tables import all_captioned, show_scores
    from cutline.cli.terminal import bar, set_threads
    from cutline.core import config
    from cutline.run.recipe import Recipe
    from cutline.run.run import STAGES, open_run

    if show_config:
        print(config.to_toml(config.load(recipe, Recipe, overrides)), end="")
        return
    stages = listed(only) or STAGES
    whole = open_run(recipe, out, overrides, tiny=tiny, bars=bar, set_threads=set_threads)
    show_scores(whole(stages))
    if "caption" in stages and not all_captioned(whole.folder):
        raise typer.Exit(1)
