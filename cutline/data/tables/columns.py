"""Which column of a table means what: as the user says, or else by the usual names."""

from __future__ import annotations

import ast
import json
import logging
import math
import re
from collections.abc import Callable, Sequence
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
#: What a model wrote. In a file of predictions these go before CAPTION; elsewhere they are never captions.
PREDICTION = (
    "prediction", "predictions", "predicted", "predictedcaption", "predictedcaptions", "predcaption", "pred",
    "generated", "generatedcaption", "generatedcaptions", "generatedtext", "generation", "generations",
    "hypothesis", "hypotheses", "hyp", "modeloutput", "modelcaption", "output", "response",
)  # fmt: skip
SPLIT = ("split", "partition", "subset", "fold")
GROUP = ("group", "groupid", "articleid")

_NUMBERED = re.compile(r"(caption|sentence|text|description|comment|raw)s?\d+")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Meaning:
    """The columns by meaning.

    Attributes:
        id_is_guessed: the user didn't name the id column, so it may number captions rather than samples.
    """

    image: str
    captions: tuple[str, ...]
    id: str | None
    id_is_guessed: bool
    split: str | None
    group: str | None
    context: tuple[str, ...]
    extra: tuple[str, ...]

    def to_json(self) -> dict[str, list[str]]:
        """Meaning → columns, for people; without the columns that are carried along."""
        columns = {
            "image": [self.image],
            "captions": list(self.captions),
            "id": [self.id] if self.id else [],
            "split": [self.split] if self.split else [],
            "group": [self.group] if self.group else [],
            "context": list(self.context),
        }
        return {name: values for name, values in columns.items() if values}


def data_columns(key: str) -> str:
    """How a recipe names a column."""
    return f"[data.columns] {key} = …"


def assign(
    names: Sequence[str],
    chosen: Columns,
    where: Path,
    captions_required: bool = True,
    id_names_image: bool = False,
    option: Callable[[str], str] = data_columns,
) -> Meaning:
    """Gives each column its meaning.

    Args:
        names: the table's columns.
        chosen: the columns that the user named.
        where: the table, for messages.
        id_names_image: where no column is known to name the image's file, the id column does.
        option: key → how the user can name the column, for messages.

    Raises:
        RecipeError: a column that the recipe names is absent, or there is none to take for image or caption.
    """
    for key, wanted in chosen.model_dump().items():
        for name in [wanted] if isinstance(wanted, str) else wanted or []:
            _check(name, key, names, where)
    image = chosen.image or guess(names, IMAGE)
    if image is None and id_names_image:
        image = chosen.id or guess(names, ID)
    if image is None:
        raise RecipeError(
            f"{where}: no column is known to hold the image's file name. Columns: {', '.join(names)}.",
            f"Name it: {option('image')}",
        )
    captions = _captions(names, chosen, image)
    if not captions and captions_required:
        raise RecipeError(
            f"{where}: no column is known to hold captions. Columns: {', '.join(names)}.",
            f"Name it: {option('caption')}"
            + (" (or [data] captions_required = false)." if option is data_columns else ""),
        )
    identity = chosen.id or guess(names, ID)
    split = chosen.split or guess(names, SPLIT)
    group = chosen.group or guess(names, GROUP)
    context = tuple(chosen.context)
    if clash := set(context) & set(captions):
        raise RecipeError(
            f"data.columns.context: {', '.join(clash)} is the caption itself.",
            "A caption in the prompt gives the answer away; name other columns.",
        )
    used = {image, *captions, identity, split, group, *context}
    extra = chosen.extra if chosen.extra is not None else [name for name in names if name not in used]
    return Meaning(image, captions, identity, chosen.id is None, split, group, context, tuple(extra))


def texts(cell: Any) -> list[str]:
    """The captions in a cell: a text, a list of texts, or such a list written out as text (JSON or Python)."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return []
    if isinstance(cell, list | tuple):
        return [text for item in cell for text in texts(item)]
    if isinstance(cell, dict):
        return texts(next((cell[key] for key in ("raw", "caption", "captions", "text") if key in cell), None))
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


def plain(name: str) -> str:
    """A column's name in lower case, letters and digits only: "imageid" for "Image_ID"."""
    return re.sub(r"[\W_]+", "", name.lower())


def guess(names: Sequence[str], usual: Sequence[str]) -> str | None:
    """The first of the usual names that is there, as the table writes it."""
    by_plain: dict[str, str] = {}
    for name in names:
        by_plain.setdefault(plain(name), name)
    return next((by_plain[name] for name in usual if name in by_plain), None)


def _captions(names: Sequence[str], chosen: Columns, image: str) -> tuple[str, ...]:
    if chosen.caption is not None:
        return (chosen.caption,) if isinstance(chosen.caption, str) else tuple(chosen.caption)
    stems = {match[1] for name in names if (match := _NUMBERED.fullmatch(plain(name)))}
    if stems:  # caption_1, caption_2 …; and "caption" beside "caption.1", as pandas writes columns of one name
        stem = min(stems, key=lambda stem: CAPTION.index(stem))
        numbered = [name for name in names if re.fullmatch(rf"{stem}s?\d*", plain(name))]
        return tuple(sorted(numbered, key=lambda name: int((re.findall(r"\d+", name) or [-1])[-1])))
    others = {image, chosen.id, chosen.split, chosen.group}
    caption = guess([name for name in names if name not in others], CAPTION)
    return (caption,) if caption else ()


def prediction_column(names: Sequence[str], where: Path, option: Callable[[str], str]) -> str:
    """The column with a model's captions.

    Raises:
        RecipeError: there is none, or several could be it.
    """
    candidates = [name for name in names if plain(name) in PREDICTION]
    if not candidates and (usual := guess(names, CAPTION)):
        candidates = [usual]
    if not candidates:
        candidates = [name for name in names if _NUMBERED.fullmatch(plain(name))]
    if len(candidates) == 1:
        others = [name for name in names if plain(name) in CAPTION and name not in candidates]
        if others:
            logger.info(
                "%s: predictions are read from the column %s, not from %s.", where, candidates[0], ", ".join(others)
            )
        return candidates[0]
    if candidates:
        problem = f"{where}: the captions could be in any of the columns {', '.join(candidates)}."
    else:
        problem = f"{where}: no column is known to hold captions. Columns: {', '.join(names)}."
    raise RecipeError(problem, f"Name it: {option('prediction')}")


def log_choice(
    names: Sequence[str], meaning: Meaning, chosen: Columns, where: Path, option: Callable[[str], str] = data_columns
) -> None:
    """Logs which columns the captions are read from, where others could be meant. Arguments as for :func:`assign`."""
    known = {*meaning.captions, chosen.image, chosen.id, chosen.split, chosen.group, *chosen.context}
    others = [name for name in names if plain(name) in (*CAPTION, *PREDICTION) and name not in known]
    if meaning.captions and others and chosen.caption is None:
        used, unused = ", ".join(meaning.captions), ", ".join(others)
        logger.info("%s: captions are read from %s, not from %s (%s).", where, used, unused, option("caption"))


def _check(name: str, key: str, names: Sequence[str], where: Path) -> None:
    if name in names:
        return
    near = nearest(name, names)
    hint = f"Did you mean {near!r}? " if near else ""
    raise RecipeError(f"data.columns.{key}: {where} has no column {name!r}.", f"{hint}Columns: {', '.join(names)}.")
