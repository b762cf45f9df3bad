"""``cutline retrieve index`` and ``search``: what they open, print and write."""

from __future__ import annotations

import json as standard_json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import jinja2
from markupsafe import Markup
from rich.console import Console
from rich.table import Table

from cutline import report
from cutline.caption_verb import identity
from cutline.data.dataset import Dataset
from cutline.data.images import ImageProblem
from cutline.errors import CutlineError
from cutline.families.common.retrieval import RetrievalFamily
from cutline.families.open import open_checkpoint, spare_threads
from cutline.jsonl import dumps, write_atomically
from cutline.progress import bar, say
from cutline.quiet import quiet_libraries
from cutline.records import Hit
from cutline.report.thumbnails import thumbnail
from cutline.retrieve.approximate import FEW, RECALL
from cutline.retrieve.index import Condition, Index, Kind, update
from cutline.retrieve.search import search

Found = Sequence[tuple[Hit, int]]


def make(model: str, dataset: str, out: Path, split: str, *, prune: bool, approximate: bool | None, device: str) -> int:
    """Indexes a dataset; returns how many images could not be opened."""
    quiet_libraries()
    data = Dataset.open(dataset)
    samples = list(data.split(split) if split else data)
    family = _opened(model, device)
    begun = time.monotonic()
    with bar("embedding") as progress:
        change = update(
            out, family, identity(model), model, samples, prune=prune, approximate=approximate, progress=progress
        )
    for name, problem in change.failed.items():
        say(f"left out: {name}: {problem}")
    facts = Index.open(out).facts
    say(f"{change.added:,} added, {change.removed:,} removed or replaced, {change.kept:,} kept; "
        f"{time.monotonic() - begun:.0f} s")  # fmt: skip
    say(f"index: {out} ({facts['images']:,} images, {facts['texts']:,} captions)")
    if "approximate" in facts and not facts["approximate"]:
        say(f"no approximate structure: up to {FEW:,} images, or captions, are as fast scanned")
    for kind, about in facts.get("approximate", {}).items():
        say(
            f"{'images' if kind == 'image' else 'captions'}: approximate search of {about['probes']:,} of "
            f"{about['lists']:,} lists finds {about['recall']:.3f} of the ten nearest; search --exact finds all"
        )
        if about["recall"] < RECALL:
            say(f"that is less than {RECALL}: --no-approximate scans instead")
    return len(change.failed)


def find(
    place: str, text: str, image: str, kind: str, k: int, filters: Sequence[str], rerank: int,
    *, exact: bool, json: bool, html: Path | None, device: str,
) -> None:  # fmt: skip
    """Searches and prints, or writes a page."""
    if bool(text) == bool(image):
        raise CutlineError("A search needs a text or an image.", "Give a TEXT, or --image FILE.")
    if kind not in ("images", "texts"):
        raise CutlineError(f"There are no {kind!r} in an index.", "--for images or texts.")
    if text and kind == "texts":
        raise CutlineError("A text is looked for among images.", "Give --image FILE with --for texts.")
    if rerank and image and kind == "images":
        raise CutlineError("The matching head reads a text and an image.", "Leave --rerank out between images.")
    conditions = [Condition(one) for one in filters]
    index = Index.open(place)
    quiet_libraries()
    family = _opened(index.facts["checkpoint"], device)
    if identity(index.facts["checkpoint"]) != index.facts["made_by"]:
        raise CutlineError(
            f"{index.facts['checkpoint']} is not what {place} was made with any more.", "Index the dataset again."
        )
    what: Kind = "image" if kind == "images" else "text"
    found = search(
        index, family, text=text, image=image, kind=what, k=k, conditions=conditions, rerank=rerank, exact=exact
    )
    if not found:
        say("nothing meets these conditions")
    if html:
        write_atomically(html, page(index, found, text, image, what, filters).encode("utf-8", "replace"))
        say(f"page: {html}")
    elif json:
        for hit, row in found:
            item = index.item(row)
            print(dumps({**hit.to_json(), "image": item["image"], "text": item["text"], "split": item["split"]}))
    else:
        Console().print(_table(index, found))


def _opened(model: str, device: str) -> RetrievalFamily:
    family = open_checkpoint(model, "float32", device, task="embed")
    spare_threads(family)
    return cast("RetrievalFamily", family)


def _table(index: Index, found: Found) -> Table:
    table = Table()
    for name in ("rank", "cosine", "match"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("id", overflow="fold")
    table.add_column("caption", overflow="fold")
    for hit, row in found:
        item = index.item(row)
        match = "" if hit.itm is None else f"{hit.itm:.2f}"
        table.add_row(str(hit.rank), f"{hit.itc:.4f}", match, item["id"], item["text"])
    return table


def page(index: Index, found: Found, text: str, image: str, kind: Kind, filters: Sequence[str]) -> str:
    """The results as one HTML file with pictures, which needs nothing else."""
    here = Path(report.__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "retrieve"), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("search.html.jinja").render(
        css=Markup((here / "page.css").read_text(encoding="utf-8")),
        query=text or Path(image).name,
        asked=_picture(image) if image else None,
        filters=filters,
        facts=index.facts,
        kind="captions" if kind == "text" else "images",
        cards=[_card(index.item(row), hit) for hit, row in found],
    )


def _card(item: dict[str, Any], hit: Hit) -> dict[str, Any]:
    about = {key: value for key, value in standard_json.loads(item["about"]).items() if isinstance(value, str)}
    return {
        **_picture(item["image"]),
        "text": item["text"], "id": item["id"], "rank": hit.rank, "cosine": f"{hit.itc:.3f}",
        "match": None if hit.itm is None else f"{hit.itm:.2f}", "split": item["split"],
        "about": [value for key, value in about.items() if key in ("date", "section", "location")],
    }  # fmt: skip


def _picture(path: str) -> dict[str, Any]:
    try:
        return {"picture": thumbnail(path), "why_none": ""}
    except ImageProblem as problem:
        return {"picture": None, "why_none": problem.problem}
