"""``cutline retrieve index`` and ``search``: what they open, print and write."""

from __future__ import annotations

import json as standard_json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cutline.cli.terminal import bar, say
from cutline.core.errors import CutlineError
from cutline.core.fingerprint import checkpoint_fingerprint
from cutline.core.jsonl import dumps
from cutline.core.short_ids import short_names
from cutline.core.verbosity import quiet_libraries
from cutline.data.dataset import Dataset
from cutline.families.common.retrieval import RetrievalFamily
from cutline.families.open import open_checkpoint, spare_threads
from cutline.retrieve.approximate import FEW, RECALL
from cutline.retrieve.index import Condition, Index, Kind, update
from cutline.retrieve.search import Found, search


def make(model: str, dataset: str, out: Path, split: str, *, prune: bool, approximate: bool | None, device: str) -> int:
    """Indexes a dataset; returns how many images could not be opened."""
    quiet_libraries()
    data = Dataset.open(dataset)
    samples = list(data.split(split) if split else data)
    family = _opened(model, device)
    name = os.path.abspath(model) if Path(model).is_dir() else model  # an index is searched from anywhere
    begun = time.monotonic()
    with bar("embedding") as progress:
        change = update(
            out,
            family,
            checkpoint_fingerprint(model),
            name,
            samples,
            prune=prune,
            approximate=approximate,
            progress=progress,
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
    text = text.strip()
    if not text and not image:
        raise CutlineError("A search needs a text or an image.", "Give a TEXT, or --image FILE.")
    if text and image:
        raise CutlineError("A search is by a text or by an image, not by both.", "Leave TEXT or --image out.")
    if kind not in ("images", "texts"):
        raise CutlineError(f"There are no {kind!r} in an index.", "--for images or texts.")
    if text and kind == "texts":
        raise CutlineError("A text is looked for among images.", "Give --image FILE with --for texts.")
    if rerank and image and kind == "images":
        raise CutlineError("The matching head reads a text and an image.", "Leave --rerank out between images.")
    if html and html.is_dir():
        raise CutlineError(f"{html} is a folder.", f"Give the page a name: --html {html / 'found.html'}")
    conditions = [Condition(one) for one in filters]
    index = Index.open(place)
    quiet_libraries()
    family = _opened(index.facts["checkpoint"], device)
    if checkpoint_fingerprint(index.facts["checkpoint"]) != index.facts["made_by"]:
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
        asked: dict[str, Any] = {"text": text, "image": image, "kind": what, "conditions": conditions}
        from cutline.report import search_page  # loads the templates, which a search on the terminal doesn't need

        search_page.write(html, index, found, rerank=rerank, **asked)
        say(f"page: {html}")
    elif json:
        for one in found:
            print(dumps(_line(index, one)))
    elif found:
        Console().print(_table(index, found))


def _opened(model: str, device: str) -> RetrievalFamily:
    family = open_checkpoint(model, "float32", device, task="embed")
    spare_threads(family)
    return cast("RetrievalFamily", family)


def _table(index: Index, found: Sequence[Found]) -> Table:
    """With columns only for what differs: no matching logits and no splits where there are none."""
    items = [index.item(one.row) for one in found]
    matched, divided = any(one.hit.itm is not None for one in found), any(item["split"] for item in items)
    table = Table()
    for name in ("rank", "cosine", *(["match"] if matched else [])):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("id", overflow="fold")
    if divided:
        table.add_column("split")
    table.add_column("caption", overflow="fold")
    for one, item, name in zip(found, items, short_names([one.hit.candidate for one in found]), strict=True):
        match = [] if not matched else ["" if one.hit.itm is None else f"{one.hit.itm:.2f}"]
        cells = [str(one.hit.rank), f"{one.hit.itc:.4f}", *match, name, *([item["split"]] if divided else [])]
        # as Text: a caption may hold what rich takes for markup
        table.add_row(*(Text(cell) for cell in (*cells, one.captions[0] if one.captions else "")))
    return table


def _line(index: Index, one: Found) -> dict[str, Any]:
    """All that is known of an item, for programs."""
    item = index.item(one.row)
    text = one.captions[0] if one.captions else ""
    about = standard_json.loads(item["about"])
    told = {
        "image": item["image"],
        "text": text,
        "captions": list(one.captions),
        "split": item["split"],
        "about": about,
    }
    return {**one.hit.to_json(), **told}
