"""GoodNews (Biten et al. 2019): articles of the New York Times with captions by image number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cutline.core.errors import DataError
from cutline.core.records import Sample
from cutline.data.context.dates import date_of
from cutline.data.problem import Problem
from cutline.data.settings import DataSettings
from cutline.data.tables.image_finder import ImageFinder
from cutline.data.tables.rows import json_members, read_json

DESCRIPTION = "GoodNews: captioning_dataset.json (article → images, headline, article), beside it splits and image URLs"

CAPTIONS = "captioning_dataset.json"


def recognises(source: Path) -> bool:
    return (source / CAPTIONS).is_file() if source.is_dir() else source.name == CAPTIONS


def read(source: Path, settings: DataSettings) -> Iterator[Sample | Problem]:
    """
    A sample for each image of each article: its id is <article>_<number>, its group the article. The split comes from
    img_splits.json ({"<id>": "train"}), the address from img_urls.json ({article: {number: address}}), each named like
    that or with another beginning; without addresses the images are <id>.jpg, as the authors' program leaves them.

    Raises:
        DataError: no such file.
    """
    path = source / CAPTIONS if source.is_dir() else source
    if not path.is_file():
        raise DataError(f"{source} has no {CAPTIONS}.", "Name the folder or the file itself in [data] source.")
    folder = path.parent
    splits = _by_image(_beside(folder, "split"))
    addresses = _by_image(_beside(folder, "url"))
    finder = ImageFinder([folder / "resized", folder / "images", folder], settings.images)
    for article, content in json_members(path):
        images = content.get("images") if isinstance(content, dict) else None
        if not isinstance(images, dict):
            yield Problem(id=f"{path.name}, {article}", reason="bad_row", detail="it has no images")
            continue
        extra = {
            key: text
            for key in ("headline", "abstract", "article", "article_url", "web_url", "pub_date")
            if (text := _text(content.get(key)) or (date_of(content.get(key)) if key == "pub_date" else ""))
        }
        for number, caption in images.items():
            identity = f"{article}_{number}"
            yield Sample(
                id=identity,
                image=addresses.get(identity) or finder.find(f"{identity}.jpg"),
                captions=(caption,) if isinstance(caption, str) else (),
                split=splits.get(identity, ""),
                group=article,
                extra=extra,
            )


def _beside(folder: Path, word: str) -> Any:
    """The JSON file whose name has a word in it ("img_splits.json"); {} for none."""
    found = sorted(path for path in folder.glob("*.json") if word in path.name.lower())
    if len(found) > 1:
        raise DataError(f"{folder} has several JSON files for {word}s.", "Leave one of them there.")
    return read_json(found[0]) if found else {}


def _by_image(content: Any) -> dict[str, str]:
    """{"a_0": x}, {"a_0.jpg": x}, {"a": {"0": x}} and {x: ["a_0", …]} all as {"a_0": x}."""
    found: dict[str, str] = {}
    for key, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(value, Mapping):
            found |= {f"{key}_{number}": str(one) for number, one in value.items() if one}
        elif isinstance(value, list):
            found |= {str(one).removesuffix(".jpg"): str(key) for one in value}
        elif value:
            found[str(key).removesuffix(".jpg")] = str(value)
    return found


def _text(value: Any) -> str:
    """A headline is {"main": …} in some files."""
    if isinstance(value, Mapping):
        value = value.get("main")
    return value.strip() if isinstance(value, str) else ""
