"""``cutline train``: the first stages of a recipe."""

from __future__ import annotations

from cutline.cli.options import RecipePath, RecipeSet, RunOut, Tiny


def train(recipe: RecipePath, out: RunOut = None, overrides: RecipeSet = [], tiny: Tiny = False) -> None:
    """Prepare and train, without captioning and scoring."""
    from cutline.cli.terminal import bar, set_threads
    from cutline.run.run import open_run

    open_run(recipe, out, overrides, tiny=tiny, bars=bar, set_threads=set_threads)(("prepare", "train"))
