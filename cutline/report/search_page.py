"""The results of a search as a page with pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cutline.core.short_ids import shorten_ids
from cutline.images.open import ImageProblem
from cutline.report import html, words
from cutline.report.thumbnails import frame, thumbnail
from cutline.retrieve.index import PLAIN, Condition, Index, Kind
from cutline.retrieve.search import SearchResult

#: Fields that tell people which photograph it is; those of a filter are shown, too. All others are a click away.
_TELLING = ("headline", "title", "date", "section", "location", "byline", "author", "photographer", "credit")

#: Fields for programs, or that the page shows in another way.
_INNER = frozenset({"sha256", "width", "height"})

#: Characters of a field beside a picture, and of one that is a click away.
_SHORT, _LONG = 60, 400


def write(path: Path, index: Index, found: Sequence[SearchResult], **asked: Any) -> Path:
    """Writes the page; returns its path. ``asked``: see :func:`render`."""
    return html.write(path, render(index, found, **asked))


def render(
    index: Index,
    found: Sequence[SearchResult],
    *,
    text: str = "",
    image: str = "",
    kind: Kind = "image",
    conditions: Sequence[Condition] = (),
    rerank: int = 0,
) -> str:
    """The page as text.

    Args:
        text, image: the query, as in ``search``; so are the others.
    """
    names = shorten_ids([one.hit.candidate for one in found])
    asked = hashlib.sha256(Path(image).read_bytes()).hexdigest() if image else ""
    cards = [_card(index, one, name, conditions, asked) for one, name in zip(found, names, strict=True)]
    about_image = "Captions for this image" if kind == "text" else "Images like this one"
    return html.render(
        "search.html.jinja",
        "page.css",
        "search.css",
        title=text or about_image,
        deck=_deck(index, len(found), kind, conditions, rerank),
        asked=_picture(image) if image else None,
        facts=index.facts,
        kind=kind,
        aspect=frame([card["picture"] for card in cards if card["picture"]]),
        cards=cards,
    )


def _deck(index: Index, count: int, kind: Kind, conditions: Sequence[Condition], rerank: int) -> str:
    """How many of how many, chosen by what."""
    thing = "caption" if kind == "text" else "image"
    among = words.count(len(index.where(kind, conditions)), thing)
    met = f" with {', '.join(str(one) for one in conditions)}" if conditions else ""
    model = Path(index.facts["checkpoint"]).name
    how = f"; the nearest {rerank:,} re-ranked by the matching head" if rerank else ""
    return f"The {count:,} nearest of {among}{met}, by the model {model}{how}."


def _card(index: Index, one: SearchResult, name: str, conditions: Sequence[Condition], asked: str) -> dict[str, Any]:
    item = index.item(one.row)
    about: dict[str, Any] = {key: value for key, value in json.loads(item["about"]).items() if value not in (None, "")}
    telling = [*_TELLING, *(other.name for other in conditions if other.name not in (*PLAIN, *_TELLING))]
    size = f"{about['width']:,} × {about['height']:,} px" if {"width", "height"} <= about.keys() else ""
    details = [("id", item["id"]), ("file", item["image"]), ("size", size)]
    details += [(key, _cut(value, _LONG)) for key, value in about.items() if key not in _INNER]
    others = list(one.captions[1:])
    return {
        **_picture(item["image"]),
        "text": one.captions[0] if one.captions else "",
        "others": others,
        "more": f"{words.count(len(others), 'more caption')}, details" if others else "details",
        "details": [(key, value) for key, value in details if value],
        "about": [(key, _cut(about[key], _SHORT)) for key in telling if key in about],
        "id": item["id"], "name": name, "split": item["split"], "rank": one.hit.rank,
        "cosine": f"{one.hit.itc:.3f}",
        "match": None if one.hit.itm is None else f"{one.hit.itm:.2f}",
        "same": bool(asked) and about.get("sha256") == asked,
    }  # fmt: skip


def _cut(value: object, most: int) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _picture(path: str) -> dict[str, Any]:
    try:
        return {"picture": thumbnail(path, 400), "why_none": ""}
    except ImageProblem as problem:
        return {"picture": None, "why_none": problem.problem}
