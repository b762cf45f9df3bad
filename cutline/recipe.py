"""Reading recipes: TOML files whose sections are pydantic models.

This file knows how a section is read and checked, not which sections there are: each section's model stands in a
``settings.py`` beside the code that uses it, and ``cutline/run.py`` puts them together.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from cutline.errors import RecipeError


class Section(BaseModel):
    """One section of a recipe: frozen, and a key that it doesn't know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


AnySection = TypeVar("AnySection", bound=Section)


def load(path: str | Path, recipe: type[AnySection], overrides: Sequence[str] = ()) -> AnySection:
    """Reads a recipe: defaults ← file ← overrides.

    Args:
        path: a TOML file.
        recipe: the model of the whole recipe.
        overrides: ``section.key=value`` each; the value is read as TOML, and as a plain string where that fails.

    Raises:
        RecipeError: the file is absent or not TOML, or a key or value is wrong.
    """
    return parse(read_toml(path), recipe, overrides, where=str(path))


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        RecipeError: absent, a folder, or not TOML.
    """
    path = Path(path)
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.toml")], n=1)
        hint = f"Did you mean {path.parent / near[0]}?" if near else "Give the path of a .toml file."
        raise RecipeError(f"There is no recipe {path}.", hint)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}.", "Mend that place in the file.") from error


def parse(
    table: dict[str, Any], recipe: type[AnySection], overrides: Sequence[str] = (), where: str = "the recipe"
) -> AnySection:
    """Checks a table of values against a recipe's model.

    Raises:
        RecipeError: an unknown key (with the nearest known one) or a wrong value.
    """
    for override in overrides:
        _set(table, override)
    try:
        return recipe.model_validate(table)
    except ValidationError as error:
        raise _plain(error, recipe, where) from error


def _set(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or "." not in key:
        raise RecipeError(f"--set {override} is not of the form section.key=value.", "For example --set train.epochs=3")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *sections, last = key.strip().split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {override}: {section} is a value, not a section.", "Name a key inside a section.")
    table[last] = value


def _plain(error: ValidationError, recipe: type[Section], where: str) -> RecipeError:
    """The first of pydantic's complaints as a problem and a remedy."""
    first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"]]
    key = ".".join(location)
    others = f" ({error.error_count() - 1} more after it)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _keys(recipe, location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        hint = f"Did you mean {'.'.join([*location[:-1], near[0]])}?" if near else f"Known here: {', '.join(known)}."
        return RecipeError(f"{where}: unknown key {key}{others}.", hint)
    if first["type"] == "missing":
        return RecipeError(f"{where}: {key} is missing{others}.", f"Add {key} = …")
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    description = _describe(recipe, location)
    got = json.dumps(first["input"], default=str, ensure_ascii=False)
    got = got if len(got) <= 60 else got[:59] + "…"
    problem = f"{where}: {key} = {got}: {message}{others}." if key else f"{where}: {message}{others}."
    return RecipeError(problem, description or "Change that value.")


def _model(annotation: Any) -> type[Section] | None:
    """The section inside an annotation such as ``TrainSettings | None``."""
    if get_origin(annotation) in (Union, UnionType):
        return next((found for found in map(_model, get_args(annotation)) if found), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _walk(recipe: type[Section], location: Sequence[str]) -> type[Section] | None:
    model: type[Section] | None = recipe
    for part in location:
        found = model.model_fields.get(part) if model else None
        model = _model(found.annotation) if found else None
    return model


def _keys(recipe: type[Section], location: Sequence[str]) -> list[str]:
    model = _walk(recipe, location)
    return list(model.model_fields) if model else []


def _describe(recipe: type[Section], location: Sequence[str]) -> str:
    for end in range(len(location), 0, -1):  # a wrong list item is explained by its list
        model = _walk(recipe, location[: end - 1])
        if model and location[end - 1] in model.model_fields:
            text = model.model_fields[location[end - 1]].description
            return f"{'.'.join(location[:end])}: {text}" if text else ""
    return ""


def to_toml(section: Section) -> str:
    """A recipe as TOML with every default written out; keys without a value (None) are left out."""
    table: dict[str, Any] = _without_none(section.model_dump(mode="json"))
    return tomli_w.dumps(table)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value
