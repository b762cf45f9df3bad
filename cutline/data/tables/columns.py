"""Which column of a table means what: as the recipe says, and else by the usual names."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cutline.core.errors import RecipeError
from cutline.core.suggest import nearest
from cutline.data.settings import Columns

#: The usual names, best first, in lower case without punctuation.
IMAGE = (
    "filename", "image", "imagename", "imgname", "imagefile", "imagefilename", "imagepath", "imgpath", "filepath",
    "path", "file", "img", "photo", "picture", "imageid", "imgid",
    "imageurl", "imgurl", "photourl", "url",
)  # fmt: skip
CAPTION = (
    "captions", "caption", "sentences", "sentence", "text", "texts", "description", "descriptions", "comment",
    "alttext", "alt", "raw", "title",
)  # fmt: skip
ID = ("id", "sampleid", "imageid", "imgid", "cocoid", "uid", "key")
SPLIT = ("split", "partition")
GROUP = ("group", "groupid", "articleid")

_NUMBERED = re.compile(r"(caption|sentence|text|description|comment|raw)s?\d+")


@dataclass(frozen=True, slots=True)
class Meaning:
    """The columns by meaning. ``id_is_guessed``: nobody said that the id column names samples rather than captions."""

    image: str
    captions: tuple[str, ...]
    id: str | None
    id_is_guessed: bool
    split: str | None
    group: str | None
    context: tuple[str, ...]
    extra: tuple[str, ...]


def assign(names: Sequence[str], said: Columns, where: Path, captions_required: bool = True) -> Meaning:
    """Gives each column its meaning.

    Args:
        names: the table's columns.
        said: what the recipe says.
        where: the table, for messages.

    Raises:
        RecipeError: a column that the recipe names is absent, or there is none to take for image or caption.
    """
    for key, wanted in said.model_dump().items():
        for name in [wanted] if isinstance(wanted, str) else wanted or []:
            _check(name, key, names, where)
    image = said.image or _guess(names, IMAGE)
    if image is None:
        raise RecipeError(
            f"{where}: no column is known to hold the image's file name. Columns: {', '.join(names)}.",
            "Say which it is: [data.columns] image = …",
        )
    captions = _captions(names, said, image)
    if not captions and captions_required:
        raise RecipeError(
            f"{where}: no column is known to hold captions. Columns: {', '.join(names)}.",
            "Say which it is: [data.columns] caption = … (or [data] captions_required = false).",
        )
    identity = said.id or _guess(names, ID)
    split = said.split or _guess(names, SPLIT)
    group = said.group or _guess(names, GROUP)
    context = tuple(said.context)
    if clash := set(context) & set(captions):
        raise RecipeError(
            f"data.columns.context: {', '.join(clash)} is the caption itself.",
            "A caption in the prompt gives the answer away; name other columns.",
        )
    used = {image, *captions, identity, split, group, *context}
    extra = said.extra if said.extra is not None else [name for name in names if name not in used]
    return Meaning(image, captions, identity, said.id is None, split, group, context, tuple(extra))


def texts(cell: Any) -> list[str]:
    """The captions in a cell: a text, a list of texts, or such a list written out as text (JSON or Python)."""
    if cell is None:
        return []
    if isinstance(cell, list | tuple):
        return [text for item in cell for text in texts(item)]
    if isinstance(cell, dict):
        return texts(next((cell[key] for key in ("raw", "caption", "text") if key in cell), None))
    text = str(cell)
    if text.lstrip().startswith("[") and text.rstrip().endswith("]"):
        for parse in (json.loads, ast.literal_eval):
            try:
                items = parse(text.strip())
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
            if isinstance(items, list) and all(isinstance(item, str) for item in items):
                return items
    return [text]


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


def _guess(names: Sequence[str], usual: Sequence[str]) -> str | None:
    plain: dict[str, str] = {}
    for name in names:
        plain.setdefault(_plain(name), name)
    return next((plain[name] for name in usual if name in plain), None)


def _captions(names: Sequence[str], said: Columns, image: str) -> tuple[str, ...]:
    if said.caption is not None:
        return (said.caption,) if isinstance(said.caption, str) else tuple(said.caption)
    if numbered := [name for name in names if _NUMBERED.fullmatch(_plain(name))]:
        return tuple(sorted(numbered, key=lambda name: int(re.findall(r"\d+", name)[-1])))
    taken = {image, said.id, said.split, said.group}
    guess = _guess([name for name in names if name not in taken], CAPTION)
    return (guess,) if guess else ()


def _check(name: str, key: str, names: Sequence[str], where: Path) -> None:
    if name in names:
        return
    near = nearest(name, names)
    hint = f"Did you mean {near!r}? " if near else ""
    raise RecipeError(f"data.columns.{key}: {where} has no column {name!r}.", f"{hint}Columns: {', '.join(names)}.")
