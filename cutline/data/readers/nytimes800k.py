"""NYTimes800k (Tran et al. 2020): an article a line, its paragraphs and captions in their order."""

from __future__ import annotations

import codecs
import contextlib
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from cutline.core.records import Sample
from cutline.data.addresses import is_address
from cutline.data.context.dates import date_of
from cutline.data.problem import Problem
from cutline.data.settings import DataSettings
from cutline.data.tables.image_finder import ImageFinder
from cutline.data.tables.rows import Row, TableFile

DESCRIPTION = "NYTimes800k: JSON lines, an article each, with parsed_section (paragraphs and captions) or images"


def recognises(source: Path) -> bool:
    if not source.is_file() or source.suffix.lower() not in (".jsonl", ".ndjson"):
        return False
    return holds_articles(source)


def holds_articles(source: Path) -> bool:
    """Whether the first line of JSON that is whole is an article with images in it, rather than a row of a table."""
    with open(source, "rb") as file:
        for line in islice(file, 100):
            with contextlib.suppress(ValueError):
                return _is_article(json.loads(line.removeprefix(codecs.BOM_UTF8)))
    return False


def _is_article(row: Any) -> bool:
    if not isinstance(row, dict):
        return False
    images = row.get("images")
    return isinstance(row.get("parsed_section"), list) or (
        isinstance(images, list) and bool(images) and isinstance(images[0], dict) and "caption" in images[0]
    )


def read(source: Path, settings: DataSettings) -> Iterator[Sample | Problem]:
    """
    A sample for each caption: its id is the image's hash (or <article>_<number>), its group the article. What stands
    around it is kept: headline, abstract, web_url, and the paragraphs as article.
    """
    finder = ImageFinder([source.parent / "images", source.parent], settings.images)
    for row in TableFile(source):
        where = f"{source.name}, row {row.number}"
        if not isinstance(row, Row):
            yield Problem(id=where, reason="bad_row", detail=row.detail)
            continue
        article = row.cells
        identity = _identity(article.get("_id") or article.get("id")) or where
        sections = [part for part in _list(article.get("parsed_section")) if isinstance(part, dict)]
        images = [part for part in sections if part.get("type") == "caption"]
        images += [part for part in _list(article.get("images")) if isinstance(part, dict)]
        if not images:
            yield Problem(id=identity, reason="no_image", detail="an article without images")
            continue
        extra = _around(article, sections)
        for number, image in enumerate(images):
            name = next((str(image[key]) for key in ("url", "file_name", "path", "hash") if image.get(key)), "")
            if not name:
                yield Problem(id=f"{identity}_{number}", reason="bad_row", detail="a caption without hash, url or path")
                continue
            yield Sample(
                id=str(image.get("hash") or f"{identity}_{number}"),
                image=name if is_address(name) else finder.find(name),
                captions=tuple(
                    text for key in ("text", "caption") if isinstance(text := image.get(key), str) and text.strip()
                )[:1],
                split=str(image.get("split") or article.get("split") or ""),
                group=identity,
                extra=extra,
            )


def _around(article: Mapping[str, Any], sections: list[dict[str, Any]]) -> dict[str, Any]:
    headline = article.get("headline")
    date = article.get("pub_date")
    paragraphs = [str(part.get("text") or "") for part in sections if part.get("type") == "paragraph"]
    found = {
        "headline": headline.get("main") if isinstance(headline, Mapping) else headline,
        "abstract": article.get("abstract"),
        "lead_paragraph": article.get("lead_paragraph"),
        "web_url": article.get("web_url") or article.get("article_url"),
        "pub_date": date if isinstance(date, str) else date_of(date),
        "article": "\n".join(paragraphs) or article.get("article") or article.get("context"),
    }
    return {key: value for key, value in found.items() if isinstance(value, str) and value.strip()}


def _identity(value: Any) -> str:
    """MongoDB exports write {"$oid": …}."""
    return str(value.get("$oid") or "") if isinstance(value, Mapping) else str(value or "")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
