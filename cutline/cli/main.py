"""The command line: the list of verbs, and the exit codes.

A verb is one file in this folder with a function of the same name: its parameters are the arguments and options, its
docstring is the help. Heavy imports are inside the function, so that ``--help`` is fast.
"""

from __future__ import annotations

import atexit
import gc
import sys
from typing import Annotated

import typer

from cutline.cli.retrieve import group as retrieve
from cutline.cli.verbs import register

#: Verb → its line in ``cutline --help``. To add one, write its file and add a line.
VERBS = {
    "run": "Carry out a recipe: prepare, train, caption, score, report; resumes.",
    "demo": "Train, caption and score on drawn pictures, in a few minutes.",
    "prepare": "Turn captioned images of any format into a dataset.",
    "inspect": "Show the contents of a dataset, and its problems.",
    "check": "Probe a recipe's labels, model and data before training.",
    "plan": "Count the parameters that a recipe would train.",
    "train": "Prepare and train, without captioning and scoring.",
    "caption": "Caption images; resumes where it stopped.",
    "score": "Score captions, with confidence intervals and baselines.",
    "compare": "Compare captions of the same images by paired tests.",
    "report": "Write a run's report as one HTML file.",
    "families": "List the model families.",
    "bootstrap": "Caption web images and keep the captions that match.",
    "language": "Train a small language model on captions, for vision_prefix.",
}

app = typer.Typer(
    name="cutline",
    help="Adapt vision-language models to your own captioned images, caption with them, and measure how good they are.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
register(app, "cutline.cli", VERBS)
app.add_typer(retrieve.app, short_help="Find images by text and texts by image, and evaluate that.")


def version(value: bool) -> None:
    if value:
        from cutline.core.version import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def common(
    show_version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Exit code 0: success; 1: images or checks failed; 2: a mistake that the user can fix; 130: interrupted."""
    # without this, the last garbage collection walks all of torch and transformers: two seconds of CPU
    atexit.register(gc.freeze)
    try:
        app()
    except SystemExit as stop:
        if stop.code == 130:
            print("interrupted; the same command resumes from here", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
