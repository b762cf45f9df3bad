"""``cutline retrieve``: a group of verbs; each has a file of its own here."""

from __future__ import annotations

import typer

from cutline.cli.verbs import register

#: Verb → what ``cutline retrieve --help`` says about it.
VERBS = {
    "evaluate": "Compute recall in both directions, with intervals; resumes.",
    "index": "Build or update an index of a dataset.",
    "search": "Find images by a text, or images or captions by an image.",
}

app = typer.Typer(
    name="retrieve",
    help="Find images by text and texts by image, and evaluate that.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
register(app, "cutline.cli.retrieve", VERBS)
