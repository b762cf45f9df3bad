"""``cutline retrieve search``: searches an index, and prints the hits or writes a page about them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutline.cli.options import Device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from cutline.retrieve.index import Index
    from cutline.retrieve.search import SearchResult


def search(
    index_folder: Annotated[str, typer.Argument(metavar="INDEX", help="Folder of the index.")],
    text: Annotated[str, typer.Argument(metavar="[TEXT]", help="What the images should show.")] = "",
    image: Annotated[str, typer.Option(help="An image to search by instead of a text.")] = "",
    kind: Annotated[str, typer.Option("--for", metavar="images|texts", help="What to search for.")] = "images",
    k: Annotated[int, typer.Option("-k", min=1, help="How many to find.")] = 10,
    filters: Annotated[
        list[str],
        typer.Option("--filter", metavar="FIELD=VALUE", help="Also != >= <= ~ (contains); can be repeated."),
    ] = [],
    rerank: Annotated[
        int, typer.Option(min=0, help="Rank this many of the nearest again with the matching head; 0: none.")
    ] = 0,
    exact: Annotated[bool, typer.Option("--exact", help="Scan exactly even where the index is approximate.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines instead of a table.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with pictures.")] = None,
    device: Device = "auto",
) -> None:
    """Search an index: images by a text, images or captions by an image."""
    from cutline.cli.terminal import say, set_threads
    from cutline.core.errors import CutlineError
    from cutline.core.fingerprint import checkpoint_fingerprint
    from cutline.core.jsonl import dumps
    from cutline.families.common.retrieval import as_embedder
    from cutline.families.open import open_checkpoint
    from cutline.retrieve.index import Condition, Index
    from cutline.retrieve.search import search as search_index

    text = text.strip()
    _check(text, image, kind, rerank, html)
    conditions = [Condition(condition) for condition in filters]
    index = Index.open(index_folder)
    checkpoint = index.facts["checkpoint"]
    family = open_checkpoint(checkpoint, "float32", device, task="embed", set_threads=set_threads)
    if checkpoint_fingerprint(checkpoint) != index.facts["made_by"]:
        raise CutlineError(
            f"The checkpoint {checkpoint} has changed since the index {index_folder} was built.",
            "Build the index again with cutline retrieve index.",
        )
    query: dict[str, Any] = {
        "text": text,
        "image": image,
        "kind": "image" if kind == "images" else "text",
        "conditions": conditions,
    }
    hits = search_index(index, as_embedder(family), k=k, rerank=rerank, exact=exact, **query)
    if not hits:
        say("nothing matches these filters")
    if html:
        from cutline.report import search_page  # loads the templates, which a search on the terminal doesn't need

        search_page.write(html, index, hits, rerank=rerank, **query)
        say(f"page: {html}")
    elif as_json:
        for hit in hits:
            print(dumps(_to_json(index, hit)))
    elif hits:
        from rich.console import Console

        Console().print(_table(index, hits))


def _check(text: str, image: str, kind: str, rerank: int, html: Path | None) -> None:
    """
    Raises:
        CutlineError: options that exclude each other.
    """
    from cutline.core.errors import CutlineError

    if not text and not image:
        raise CutlineError("A search needs a text or an image.", "Give a TEXT, or --image FILE.")
    if text and image:
        raise CutlineError("A search takes a text or an image, not both.", "Leave out TEXT or --image.")
    if kind not in ("images", "texts"):
        raise CutlineError(f"--for {kind} is unknown.", "Give --for images or --for texts.")
    if text and kind == "texts":
        raise CutlineError("A text can only search images.", "Give --image FILE with --for texts.")
    if rerank and image and kind == "images":
        raise CutlineError("The matching head compares a text with an image, not two images.", "Leave out --rerank.")
    if html and html.is_dir():
        raise CutlineError(f"{html} is a folder.", f"Give the page a name: --html {html / 'found.html'}")


def _table(index: Index, hits: Sequence[SearchResult]) -> Table:
    """A table of the hits; the columns of matching logits and splits only where there are any."""
    from rich.table import Table
    from rich.text import Text

    from cutline.core.short_ids import shorten_ids

    items = [index.item(one.row) for one in hits]
    matched, divided = any(one.hit.itm is not None for one in hits), any(item["split"] for item in items)
    table = Table()
    for name in ("rank", "cosine", *(["match"] if matched else [])):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("id", overflow="fold")
    if divided:
        table.add_column("split")
    table.add_column("caption", overflow="fold")
    for one, item, name in zip(hits, items, shorten_ids([one.hit.candidate for one in hits]), strict=True):
        match = [] if not matched else ["" if one.hit.itm is None else f"{one.hit.itm:.2f}"]
        cells = [str(one.hit.rank), f"{one.hit.itc:.4f}", *match, name, *([item["split"]] if divided else [])]
        # as Text: a caption may hold what rich takes for markup
        table.add_row(*(Text(cell) for cell in (*cells, one.captions[0] if one.captions else "")))
    return table


def _to_json(index: Index, one: SearchResult) -> dict[str, Any]:
    """Everything known about a hit."""
    import json

    item = index.item(one.row)
    return {
        **one.hit.to_json(),
        "image": item["image"],
        "text": one.captions[0] if one.captions else "",
        "captions": list(one.captions),
        "split": item["split"],
        "about": json.loads(item["about"]),
    }
