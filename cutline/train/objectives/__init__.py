"""The objectives: each file is one, found by its name; other packages add theirs by entry points.

See ``cutline/train/objective.py`` for what a file holds.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

from pydantic import Field, create_model

from cutline.core.config import Section
from cutline.core.errors import CutlineError
from cutline.train.objective import Objective

AnySection = TypeVar("AnySection", bound=Section)


@cache
def find() -> Mapping[str, type[Objective]]:
    """Name → objective, by name.

    Raises:
        CutlineError: a file or entry point doesn't define exactly one objective.
    """
    own = {
        path.stem: importlib.import_module(f"{__name__}.{path.stem}")
        for path in Path(__file__).parent.glob("*.py")
        if not path.stem.startswith("_")
    }
    foreign = {point.name: point.load() for point in entry_points(group="cutline.objectives")}
    return {name: _objective(name, source) for name, source in sorted((foreign | own).items())}


def _objective(name: str, source: object) -> type[Objective]:
    candidates = [source]
    if isinstance(source, ModuleType):
        candidates = [value for value in vars(source).values() if getattr(value, "__module__", "") == source.__name__]
    defined = [one for one in candidates if isinstance(one, type) and issubclass(one, Objective)]
    if len(defined) != 1 or inspect.isabstract(defined[0]):
        raise CutlineError(
            f"The objective {name} must be one class that implements CaptionObjective or RetrievalObjective.",
            "Fix its file, or uninstall the package that it comes from.",
        )
    defined[0].name = name
    return defined[0]


def extended(section: str) -> Callable[[type[AnySection]], type[AnySection]]:
    """A class decorator: the section with the keys of every objective whose keys are in it.

    Args:
        section: "" for [train], which also gets the sections that objectives have of their own; "retrieval".
    """

    def decorate(model: type[AnySection]) -> type[AnySection]:
        known = find()
        bases = [one.Settings for one in known.values() if one.section == section and one.Settings is not Section]
        fields: dict[str, Any] = {
            name: (one.Settings | None, Field(None, description=one.description))
            for name, one in known.items()
            if section == "" and one.section is None
        }
        made = create_model(model.__name__, __base__=(model, *bases), __module__=model.__module__, **fields)
        made.__doc__ = model.__doc__
        return cast(type[AnySection], made)

    return decorate


def settings_of(objective: type[Objective], train: Section) -> Any:
    """The section of ``[train]`` that an objective's keys are in; None where the recipe doesn't have it."""
    if objective.section == "":
        return train
    return getattr(train, objective.section or objective.name)
