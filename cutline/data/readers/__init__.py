"""Readers: one file a format, found by its file name. Listing them imports none.

A reader module has

    DESCRIPTION                                         one line for people
    recognises(source: Path) -> bool                    quick and without errors; at most one reader should say yes
    read(source: Path, settings) -> Iterator[Sample | Problem]

A sample's image is a path that may be absent; whether it can be opened is found out later. Its split is what the source
calls it, "" when the source doesn't say.
"""

from __future__ import annotations

import ast
import difflib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, cast

from cutline.core.errors import DataError, RecipeError
from cutline.core.records import Sample
from cutline.data.problem import Problem
from cutline.data.settings import DataSettings


class Reader(Protocol):
    DESCRIPTION: str

    @staticmethod
    def recognises(source: Path) -> bool: ...
    @staticmethod
    def read(source: Path, settings: DataSettings) -> Iterator[Sample | Problem]: ...


def names() -> list[str]:
    """The formats that can be read, in alphabetical order."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))


def descriptions() -> dict[str, str]:
    """Format → one line about it, taken from the files without importing them."""
    found = {}
    for name in names():
        tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "DESCRIPTION" for t in node.targets):
                found[name] = str(ast.literal_eval(node.value))
    return found


def load(name: str) -> Reader:
    """Imports one reader.

    Raises:
        RecipeError: there is no such format.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Known formats: {', '.join(names())}."
        raise RecipeError(f"data.format: there is no format {name!r}.", hint)
    return cast(Reader, importlib.import_module(f"{__name__}.{name}"))


def recognise(source: Path) -> str:
    """The format of a source.

    Raises:
        DataError: the source is absent, or no reader or more than one recognises it.
    """
    check_present(source)
    found = [name for name in names() if load(name).recognises(source)]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{source} could be {' or '.join(found)}.", f'Say which, for example [data] format = "{found[0]}".'
        )
    known = "; ".join(f"{name}: {text}" for name, text in descriptions().items())
    raise DataError(f"{source} is in no format that is recognised.", f"Set [data] format to one of these. {known}.")


def read(settings: DataSettings) -> Iterator[Sample | Problem]:
    """Reads the source that the settings name.

    Raises:
        RecipeError: no source, an unknown format or column.
        DataError: the source is absent or can't be read.
    """
    if settings.source is None:
        raise RecipeError("data.source is missing.", "Name a file or folder with captioned images.")
    source = Path(settings.source)
    check_present(source)
    return load(settings.format or recognise(source)).read(source, settings)


def check_present(source: Path) -> None:
    """
    Raises:
        DataError: the source is absent; the message names what is there under a similar name.
    """
    if source.exists() or str(source).startswith("hub:"):
        return
    beside = [path.name for path in source.parent.iterdir()] if source.parent.is_dir() else []
    near = difflib.get_close_matches(source.name, beside, n=1)
    hint = f"Did you mean {source.parent / near[0]}?" if near else "Mend the path in [data] source."
    raise DataError(f"There is no {source}.", hint)
