"""``cutline demo``: the ordinary path of a recipe, on pictures drawn on the spot."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path

from cutline.caption.files import read
from cutline.cli.terminal import bar, say
from cutline.core.config import parse
from cutline.data.dataset import Dataset
from cutline.images import shapes
from cutline.metrics.evaluation import Evaluation
from cutline.run import run as runs

#: What `cutline demo` prints of the test captions.
SHOWN = 5


def recipe(source: Path) -> runs.Recipe:
    """The demo's recipe, on a folder of drawn pictures."""
    table = tomllib.loads(resources.files("cutline.cli").joinpath("demo.toml").read_text(encoding="utf-8"))
    table["data"]["source"] = str(source)
    return parse(table, runs.Recipe, where="the demo's recipe")


def run(folder: Path, *, tiny: bool = False) -> Evaluation | None:
    """Draws the pictures and goes through the recipe; returns the scores on combinations that were held out."""
    drawn = folder / "shapes"
    if not (drawn / "captions.csv").exists():
        say(f"drawing 2,400 pictures of two shapes into {drawn}")
        shapes.draw(drawn)
    return runs.Run(recipe(drawn), folder, tiny=tiny, bars=bar)()


def show(folder: Path) -> None:
    """Prints a few captions of held-out combinations beside what was drawn."""
    predictions = read(folder / "predictions.jsonl")
    print("\nheld-out pictures            caption")
    for sample in Dataset.open(folder / "dataset").split("test")[:SHOWN]:
        said = predictions[sample.id].caption
        truth = sample.captions[0]
        print(f"{sample.extra['source']:<28} {said}" + ("" if said == truth else f"   (drawn: {truth})"))
    print(f"\nreport: {folder / 'report.html'}")
