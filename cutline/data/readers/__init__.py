"""Readers: each file that defines one is a format; other packages add theirs as entry points ``cutline.readers``.

Listing them imports none. A reader module has

    DESCRIPTION                                         one line for people
    recognises(source: Path) -> bool                    quick and without errors; at most one reader should say yes
    read(source: Path, settings) -> Iterator[Sample | Problem]
    columns(source: Path, settings) -> dict[str, list[str]]     optional: "image", "captions" … → columns that read uses

A sample's image is a path that may be absent; whether it can be opened is found out later. Its split is what the source
calls it, "" when the source doesn't say.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, cast

from cutline.core.errors import DataError, RecipeError
from cutline.core.plugins import Plugins
from cutline.core.records import Sample
from cutline.core.suggest import nearest
from cutline.data.problem import Problem
from cutline.data.settings import DataSettings

logger = logging.getLogger(__name__)


class Reader(Protocol):
    DESCRIPTION: str

    @staticmethod
    def recognises(source: Path) -> bool: ...
    @staticmethod
    def read(source: Path, settings: DataSettings) -> Iterator[Sample | Problem]: ...


PLUGINS = Plugins(
    "readers",
    noun="format",
    package=__name__,
    defines=r"^DESCRIPTION = ",
    required={"DESCRIPTION": str, "recognises": Callable, "read": Callable},
    error=RecipeError,
)


def names() -> list[str]:
    """The formats that can be read: our own in alphabetical order, then those of other packages."""
    return list(PLUGINS.names())


def descriptions() -> dict[str, str]:
    """Format → one line about it. Imports none of our own readers."""
    found = {}
    for name in PLUGINS.own:
        for node in ast.parse(PLUGINS.path(name).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "DESCRIPTION" for t in node.targets):
                found[name] = str(ast.literal_eval(node.value))
    broken = PLUGINS.broken()
    for name in PLUGINS.foreign:
        found[name] = broken.get(name) or load(name).DESCRIPTION
    return found


def load(name: str) -> Reader:
    """Imports one reader.

    Raises:
        RecipeError: there is no such format.
    """
    return cast(Reader, PLUGINS.load(name))


def recognise(source: Path) -> str:
    """The format of a source.

    Raises:
        DataError: the source is absent, or no reader or more than one recognises it.
    """
    check_present(source)
    matches = [name for name in PLUGINS.usable() if _recognises(name, source)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise DataError(
            f"{source} could be {' or '.join(matches)}.", f'Choose one, for example [data] format = "{matches[0]}".'
        )
    known = "; ".join(f"{name}: {text}" for name, text in descriptions().items())
    raise DataError(f"{source} is in no known format.", f"Set [data] format to one of these. {known}.")


def _recognises(name: str, source: Path) -> bool:
    try:
        return load(name).recognises(source)
    except Exception as error:
        if name in PLUGINS.own:
            raise
        package = PLUGINS.source(name)
        logger.warning(f"the format {name} of the package {package} fails on {source}: {type(error).__name__}: {error}")
        return False


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


def columns(settings: DataSettings) -> dict[str, list[str]]:
    """ "image", "captions", "split" … → the source's columns that they are read from; {} for a format without columns.

    Raises:
        RecipeError, DataError: as :func:`read`.
    """
    source = Path(str(settings.source))
    find = getattr(load(settings.format or recognise(source)), "columns", None)
    return dict(find(source, settings)) if find else {}


def check_present(source: Path) -> None:
    """
    Raises:
        DataError: the source is absent; the message names what is there under a similar name.
    """
    if source.exists() or str(source).startswith("hub:"):
        return
    beside = [path.name for path in source.parent.iterdir()] if source.parent.is_dir() else []
    near = nearest(source.name, beside)
    hint = f"Did you mean {source.parent / near}?" if near else "Fix the path in [data] source."
    raise DataError(f"There is no {source}.", hint)
