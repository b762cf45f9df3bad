"""``cutline demo``: a whole run on pictures that are drawn first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cutline.cli.options import Tiny

if TYPE_CHECKING:
    from cutline.run.recipe import Recipe

#: Number of test captions that are printed.
SHOWN = 5


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="The run folder.")] = Path("runs/demo"),
    tiny: Tiny = False,
) -> None:
    """Train, caption and score a small model on drawn pictures: no download, no GPU, a few minutes."""
    from cutline.cli.tables import all_captioned, show_scores
    from cutline.cli.terminal import bar, say, set_threads
    from cutline.images import shapes
    from cutline.run.run import Run

    drawn = out / "shapes"
    if not (drawn / "captions.csv").exists():
        say(f"drawing 2,400 pictures of two shapes into {drawn}")
        shapes.draw(drawn)
    whole = Run(demo_recipe(drawn), out, tiny=tiny, bars=bar, set_threads=set_threads)
    show_scores(whole())
    if not all_captioned(whole.folder):
        raise typer.Exit(1)
    _show_captions(out)


def demo_recipe(source: Path) -> Recipe:
    """The demo's recipe, on a folder of drawn pictures."""
    import tomllib
    from importlib import resources

    from cutline.core.config import parse
    from cutline.run.recipe import Recipe

    table = tomllib.loads(resources.files("cutline.cli").joinpath("demo.toml").read_text(encoding="utf-8"))
    table["data"]["source"] = str(source)
    return parse(table, Recipe, where="the demo's recipe")


def _show_captions(run: Path) -> None:
    """Prints captions of a few held-out pictures beside the true ones."""
    from cutline.caption.files import read
    from cutline.data.dataset import Dataset

    predictions = read(run / "predictions.jsonl")
    print("\nheld-out pictures            caption")
    for sample in Dataset.open(run / "dataset").split("test")[:SHOWN]:
        caption = predictions[sample.id].caption
        truth = sample.captions[0]
        print(f"{sample.extra['source']:<28} {caption}" + ("" if caption == truth else f"   (drawn: {truth})"))
    print(f"\nreport: {run / 'report.html'}")
