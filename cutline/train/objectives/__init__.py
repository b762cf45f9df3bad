"""The objectives: each file is one, found by its name; other packages add theirs by entry points.

See ``cutline/train/objective.py`` for what a file holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import Field, create_model

from cutline.core.config import Section, refused
from cutline.core.errors import CutlineError
from cutline.core.plugins import Plugins
from cutline.train.objective import Objective

AnySection = TypeVar("AnySection", bound=Section)


PLUGINS = Plugins(
    "objectives",
    noun="objective",
    package=__name__,
    required={"Settings": type(Section), "section": (None, "", "retrieval"), "description": str, "tasks": frozenset},
)


@cache
def find() -> Mapping[str, type[Objective]]:
    """Name → objective, by name, without those of other packages that can't be imported."""
    found: dict[str, type[Objective]] = {}
    for name in sorted(PLUGINS.usable(Objective)):
        found[name] = PLUGINS.find(name, Objective)
        found[name].name = name
    return found


def extended(section: str) -> Callable[[type[AnySection]], type[AnySection]]:
    """A class decorator: the section with the keys of every objective whose keys are in it.

    Args:
        section: "" for [train], which also gets the sections that objectives have of their own; "retrieval".
    """

    def decorate(model: type[AnySection]) -> type[AnySection]:
        known = find()
        bases = [one.Settings for one in known.values() if one.section == section and one.Settings is not Section]
        _refuse_shared_keys(section, model, {n: one.Settings for n, one in known.items() if one.section == section})
        fields: dict[str, Any] = {
            name: (one.Settings | None, Field(None, description=one.description))
            for name, one in known.items()
            if section == "" and one.section is None
        }
        if section == "":
            fields |= {name: (refused(problem), None) for name, problem in PLUGINS.broken(Objective).items()}
        above: Any = (*bases, model)
        made = create_model(model.__name__, __base__=above, __module__=model.__module__, **fields)
        made.__doc__ = model.__doc__
        return cast(type[AnySection], made)

    return decorate


def settings_of(objective: type[Objective], train: Section) -> Any:
    """The section of ``[train]`` that an objective's keys are in; None where the recipe doesn't have it."""
    if objective.section == "":
        return train
    return getattr(train, objective.section or objective.name)


def _refuse_shared_keys(section: str, model: type[Section], settings: Mapping[str, type[Section]]) -> None:
    """Each key of a section has one owner.

    Raises:
        CutlineError: two objectives, or an objective and the section, have the same key.
    """
    where = f"[train.{section}]" if section else "[train]"
    owners = dict.fromkeys(model.model_fields, f"the section {where}")
    for name, own in settings.items():
        for key in own.model_fields:
            if key in owners:
                raise CutlineError(
                    f"The key {key} of {where} belongs to both {owners[key]} and the objective {name}.",
                    "Rename the key in the package that adds the objective, or uninstall that package.",
                )
            owners[key] = f"the objective {name}"
