"""CHAIR: objects that captions name and the image doesn't show. Lower is better.

Rohrbach et al. 2018, "Object Hallucination in Image Captioning". An image shows the objects that COCO's annotators
marked in it and those that its reference captions name. CHAIRi is the share of objects named that it doesn't show,
over all captions together; CHAIRs the share of captions that name such an object.

Words become objects by a list of synonyms: one line an object, its name first, then other words for it, with commas
between; a line that begins with "-" lists phrases that name no object. The list that comes along
(``coco_objects.txt``) was written for Cutline from COCO's 80 names; another list gives other numbers, so its hash
is part of the signature. A caption that names nothing is not wrong: read CHAIR beside a score of content.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from pydantic import Field

from cutline.core.config import Section
from cutline.core.errors import ScoreError
from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, Metric, References, ratio, some

_OWN_LIST = Path(__file__).with_name("coco_objects.txt")


class ChairSettings(Section):
    instances: str | None = Field(
        None,
        description="COCO instances JSON (instances_val2014.json), or a JSON object from image to names of its objects",
    )
    synonyms: str | None = Field(
        None, description="list of objects and other words for them; by default Cutline's own for COCO's 80 objects"
    )


class Chair(Metric):
    """Statistics an image: objects named that aren't there, objects named, whether one isn't there, 1."""

    settings_type = ChairSettings
    scores = (
        ScoreInfo(
            "chair_i",
            "CHAIRi",
            "Share of the objects named in captions that the image doesn't show.",
            unit="share",
            higher_is_better=False,
        ),
        ScoreInfo(
            "chair_s",
            "CHAIRs",
            "Share of captions that name an object that the image doesn't show.",
            unit="share",
            higher_is_better=False,
        ),
    )

    def __init__(self, references: References, settings: ChairSettings | None = None):
        super().__init__(references)
        settings = settings or ChairSettings()
        path = _instances(settings)
        self._vocabulary = Vocabulary.read(Path(settings.synonyms) if settings.synonyms else _OWN_LIST)
        self._marked = self._find(_read_objects(path), path)

    @classmethod
    def check(cls, settings: ChairSettings) -> None:
        _instances(settings)

    def _find(self, marked: Mapping[str, frozenset[str]], path: Path) -> list[frozenset[str]]:
        """The objects marked in each image; images go by their ids or their files' names."""
        absent = [name for name in self.references.ids if _key(name, marked) is None]
        if absent:
            raise ScoreError(
                f"{path} doesn't have {len(absent)} of {len(self.references)} images: {some(absent)}.",
                "Give the instances that belong to these images.",
            )
        return [marked[str(_key(name, marked))] for name in self.references.ids]

    @cached_property
    def _shown(self) -> list[frozenset[str]]:
        """What each image shows: as marked, and as its references say."""
        tokens = iter(self.references.tokens)
        return [
            marked.union(*(self._vocabulary.objects(next(tokens)) for _ in texts))
            for marked, texts in zip(self._marked, self.references.captions, strict=True)
        ]

    def statistics(self, candidates: Candidates) -> Floats:
        rows = np.zeros((len(candidates.captions), 4))
        for image, (tokens, shown) in enumerate(zip(candidates.tokens, self._shown, strict=True)):
            named = self._vocabulary.objects(tokens)
            wrong = sum(name not in shown for name in named)
            rows[image] = wrong, len(named), wrong > 0, 1
        return rows

    def reduce(self, sums: Floats) -> Floats:
        by_object = np.nan_to_num(ratio(sums[..., 0], sums[..., 1]))  # nothing named, nothing wrong
        return np.stack([by_object, ratio(sums[..., 2], sums[..., 3])], axis=-1)

    def facts(self) -> dict[str, str]:
        return {"objects": "marked+references", "synonyms": self._vocabulary.name}


class Vocabulary:
    """Phrases and the objects that they name.

    Args:
        objects: phrase, in lower case → object; None for a phrase that names none.
        name: for the signature.
    """

    def __init__(self, objects: Mapping[str, str | None], name: str):
        self.name = name
        self._objects: dict[tuple[str, ...], str | None] = {}
        for phrase, value in objects.items():
            words = tuple(_plain(phrase).split())
            for form in (words, (*words[:-1], plural(words[-1]))):
                self._objects.setdefault(form, value)
        self._longest = max(map(len, self._objects), default=0)

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Reads a list of synonyms.

        Raises:
            ScoreError: there is no such file, or no object in it.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ScoreError(f"chair: {path} can't be read: {error}.", "Give a text file with synonyms.") from error
        objects: dict[str, str | None] = {}
        for line in text.lower().splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            phrases = [" ".join(phrase.split()) for phrase in line.removeprefix("-").split(",") if phrase.strip()]
            for phrase in phrases:
                objects.setdefault(phrase, None if line.startswith("-") else phrases[0])
        if not any(objects.values()):
            raise ScoreError(f"chair: {path} lists no object.", "One line an object: its name, other words, by commas.")
        digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
        return cls(objects, f"{'cutline-coco' if path == _OWN_LIST else path.name}@{digest}")

    def objects(self, tokens: str) -> list[str]:
        """The objects that a caption's tokens name, in their order, each as often as it is named."""
        return list(self._walk(_plain(tokens.lower()).split()))

    def _walk(self, words: list[str]) -> Iterator[str]:
        position = 0
        while position < len(words):
            for size in range(min(self._longest, len(words) - position), 0, -1):
                phrase = tuple(words[position : position + size])
                if phrase in self._objects:
                    found = self._objects[phrase]
                    if found is not None:
                        yield found
                    position += size - 1
                    break
            position += 1


def _instances(settings: ChairSettings) -> Path:
    if settings.instances is None:
        raise ScoreError(
            "chair needs the objects that the images show.",
            "Give COCO's instances: [score.chair] instances = … (--set chair.instances=instances_val2014.json).",
        )
    path = Path(settings.instances)
    if not path.is_file():
        raise ScoreError(f"chair: there is no file {path}.", "Give COCO's instances JSON.")
    return path


def _plain(text: str) -> str:
    """Without hyphens and apostrophes, which people and tokenizers put as they like."""
    return re.sub("[-']", " ", text)


def plural(word: str) -> str:
    """An English noun's regular plural."""
    if re.search("(s|x|z|ch|sh)$", word):
        return f"{word}es"
    if re.search("[^aeiou]y$", word):
        return f"{word[:-1]}ies"
    return f"{word}s"


def _read_objects(path: Path) -> dict[str, frozenset[str]]:
    """Image, by each name that it may go by → its objects.

    Raises:
        ScoreError: the file is absent or of another kind.
    """
    try:
        parsed = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ScoreError(f"chair: {path} can't be read as JSON: {error}.", "Give COCO's instances JSON.") from error
    if isinstance(parsed, dict) and isinstance(parsed.get("annotations"), list) and "categories" in parsed:
        return _of_coco(parsed)
    if isinstance(parsed, dict) and all(isinstance(value, list) for value in parsed.values()):
        return {str(name): frozenset(str(item).lower() for item in value) for name, value in parsed.items()}
    raise ScoreError(
        f"chair: {path} is neither COCO instances nor an object from images to lists of names.",
        "Give the JSON that has annotations and categories (instances_val2014.json).",
    )


def _of_coco(parsed: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    names = {row["id"]: str(row["name"]).lower() for row in parsed["categories"]}
    found: dict[Any, set[str]] = {row["id"]: set() for row in parsed.get("images", ())}
    for row in parsed["annotations"]:
        if "category_id" in row:
            found.setdefault(row["image_id"], set()).add(names[row["category_id"]])
    files = {row["id"]: str(row.get("file_name", "")) for row in parsed.get("images", ())}
    objects = {str(number): frozenset(items) for number, items in found.items()}
    for number, file in files.items():
        for name in (file, PurePath(file).stem):
            objects.setdefault(name, objects[str(number)])
    return objects


def _key(name: str, marked: Mapping[str, frozenset[str]]) -> str | None:
    path = PurePath(name)
    return next((key for key in (name, path.name, path.stem) if key in marked), None)
