"""``cutline retrieve``: its commands and their options. What they do is in the ``retrieve_…_verb.py`` files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="retrieve",
    help="Find images by text, texts by image, and know how well that goes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A checkpoint folder or hub name, a run folder, or a recipe.")
]
Device = Annotated[str, typer.Option(help='"auto", "cpu", "cuda", "cuda:1", "mps".')]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error came from.")]


@app.command(short_help="Recall of both directions, with intervals; resumable.")
def evaluate(
    model: Model,
    dataset: Annotated[
        str, typer.Argument(metavar="[DATASET]", help="A prepared dataset; a recipe's or a run's own by default.")
    ] = "",
    split: Annotated[str, typer.Option(help="By default the recipe's, else test, else val.")] = "",
    k_test: Annotated[int | None, typer.Option(min=1, help="Candidates for the matching head; 128.")] = None,
    match: Annotated[
        bool | None, typer.Option("--match/--no-match", help="Rank anew by the matching head, if there is one.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="In half precision: compute what could change a rank in float32, too.")
    ] = False,
    hits: Annotated[int | None, typer.Option(min=0, help="Candidates a query in hits.jsonl; 10.")] = None,
    resamples: Annotated[int | None, typer.Option(min=0, help="Bootstrap resamples for the intervals; 1000.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the results.")] = None,
    set: Annotated[
        list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a value of the recipe.")
    ] = [],  # noqa: B006
    tiny: Annotated[bool, typer.Option("--tiny", help="Rehearse a recipe with a miniature, on few images.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew instead of going on.")] = False,
    json: Json = False,
    device: Device = "auto",
    dtype: Annotated[str, typer.Option(help='"float32", "bfloat16", "float16".')] = "float32",
    debug: Debug = False,
) -> None:
    """Evaluate image–text retrieval in both directions.

    Recall at 1, 5, 10, mean and median rank of image → text (tr) and text → image (ir), with 95 % intervals over
    images. Killed at any moment, it goes on where it stopped. Exit code 1 when images could not be opened.
    """
    from cutline.cli.retrieve import evaluate as retrieve_evaluate_verb

    changes = {
        "split": split or None, "k_test": k_test, "match": match, "verify": verify or None, "hits": hits,
        "resamples": resamples,
    }  # fmt: skip
    lost = retrieve_evaluate_verb.run(
        model, dataset, out, {key: value for key, value in changes.items() if value is not None}, set,
        tiny=tiny, overwrite=overwrite, json=json, device=device, dtype=dtype,
    )  # fmt: skip
    if lost:
        raise typer.Exit(1)


@app.command(short_help="Make an index of a dataset, or bring it up to date.")
def index(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A checkpoint folder or hub name, or a run folder.")],
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A prepared dataset.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the index.")],
    split: Annotated[str, typer.Option(help="Of the dataset; all by default.")] = "",
    prune: Annotated[bool, typer.Option("--prune", help="Take out what the dataset doesn't have any more.")] = False,
    approximate: Annotated[
        bool | None,
        typer.Option(
            "--approximate/--no-approximate", help="Search large indices faster, with FAISS; kept once asked."
        ),
    ] = None,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Make an index of a dataset's images and captions, or bring one up to date.

    What is new or changed is embedded, the rest kept. Killed at any moment, the old index stays as it was, and the same
    command goes on. Exit code 1 when images could not be opened.
    """
    from cutline.cli.retrieve import search as retrieve_search_verb

    if retrieve_search_verb.make(model, dataset, out, split, prune=prune, approximate=approximate, device=device):
        raise typer.Exit(1)


@app.command(short_help="Find images by a text, images or captions by an image.")
def search(
    index: Annotated[str, typer.Argument(metavar="INDEX", help="Folder that cutline retrieve index made.")],
    text: Annotated[str, typer.Argument(metavar="[TEXT]", help="What the images should show.")] = "",
    image: Annotated[str, typer.Option(help="An image to look for instead of a text.")] = "",
    kind: Annotated[str, typer.Option("--for", metavar="images|texts", help="What is to be found.")] = "images",
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 10,
    filter: Annotated[
        list[str],
        typer.Option("--filter", metavar="FIELD=VALUE", help="Also != >= <= ~ (contains); several must all hold."),
    ] = [],  # noqa: B006
    rerank: Annotated[int, typer.Option(min=0, help="Rank so many of the nearest anew by the matching head.")] = 0,
    exact: Annotated[bool, typer.Option("--exact", help="Scan even where the index is approximate.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON lines instead of a table.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with pictures.")] = None,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Search an index: a text for images, an image for images or captions."""
    from cutline.cli.retrieve import search as retrieve_search_verb

    retrieve_search_verb.find(
        index, text, image, kind, k, filter, rerank, exact=exact, json=json, html=html, device=device
    )
