"""Reading recipes: TOML files whose sections are pydantic models.

This file knows how a section is read and checked, not which sections there are: each section's model stands in a
``settings.py`` beside the code that uses it, and ``cutline/run.py`` puts them together.
"""

from __future__ import annotations

import copy
import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from cutline.core.errors import RecipeError


class Section(BaseModel):
    """One section of a recipe: frozen, and a key that it doesn't know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


AnySection = TypeVar("AnySection", bound=Section)


def load(path: str | Path, recipe: type[AnySection], overrides: Sequence[str] = ()) -> AnySection:
    """Reads a recipe: defaults ← file ← its chosen variant ← overrides.

    Args:
        path: a TOML file.
        recipe: the model of the whole recipe.
        overrides: ``section.key=value`` each; the value is read as TOML, and as a plain string where that fails.
            ``variant=name`` chooses one of the file's ``[variants.name]``.

    Raises:
        RecipeError: the file is absent or not TOML, or a key or value is wrong.
    """
    table = read_toml(path)
    if "variants" in table:
        table, overrides = _chosen(table, overrides, str(path))
    return parse(table, recipe, overrides, where=str(path))


def _chosen(table: dict[str, Any], overrides: Sequence[str], where: str) -> tuple[dict[str, Any], list[str]]:
    """A recipe with what its chosen variant says laid over it, and the overrides but for the choice."""
    rest = {key: value for key, value in table.items() if key not in ("variant", "variants")}
    variants = table["variants"]
    if not isinstance(variants, dict) or not variants or not all(isinstance(one, dict) for one in variants.values()):
        raise RecipeError(f"{where}: variants are sections.", "Write [variants.name] and its sections below it.")
    choices = [text.partition("=")[2].strip().strip("\"'") for text in overrides if _key_of(text) == "variant"]
    name = choices[-1] if choices else table.get("variant")
    if name not in variants:
        known = f"Variants: {', '.join(variants)}."
        near = difflib.get_close_matches(str(name), variants, n=1)
        problem = f"{where}: there is no variant {name!r}." if name else f"{where} says no variant."
        raise RecipeError(problem, f"Did you mean {near[0]}? {known}" if near else known)
    return _laid_over(rest, variants[name]), [text for text in overrides if _key_of(text) != "variant"]


def _key_of(override: str) -> str:
    return override.partition("=")[0].strip()


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two tables as one: sections are merged key by key, of two values the upper one counts."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _laid_over(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


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
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}.", "Mend that place in the file.") from error


def parse(
    table: Mapping[str, Any], recipe: type[AnySection], overrides: Sequence[str] = (), where: str = "the recipe"
) -> AnySection:
    """Checks a table of values against a recipe's model.

    Raises:
        RecipeError: an unknown key (with the nearest known one) or a wrong value.
    """
    values = copy.deepcopy(dict(table))
    texts = dict(_set(values, override) for override in overrides)
    try:
        return recipe.model_validate(values)
    except ValidationError as error:
        wanted = {_location(recipe, one["loc"]) for one in error.errors() if one["type"] == "string_type"}
        numbers = [(keys, text) for keys, text in texts.items() if keys in wanted]
        if not numbers:
            raise _plain(error, recipe, where) from error
    for keys, text in numbers:  # a folder called 2024 is a text, whatever TOML says
        _put(values, keys, text)
    return parse(values, recipe, where=where)


def _set(table: dict[str, Any], override: str) -> tuple[tuple[str, ...], str]:
    """Puts a ``key=value`` into the table; returns the key's parts and the text of the value."""
    key, equals, text = override.partition("=")
    keys = tuple(part.strip() for part in key.split("."))
    if not equals or not all(keys):
        raise RecipeError(f"--set {override} is not of the form section.key=value.", "For example --set train.epochs=3")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    if not _put(table, keys, value):
        raise RecipeError(f"--set {override}: {key} lies inside a value, not a section.", "Name a key of a section.")
    return keys, text


def _put(table: dict[str, Any], keys: Sequence[str], value: Any) -> bool:
    for section in keys[:-1]:
        below = table.setdefault(section, {})
        if not isinstance(below, dict):
            return False
        table = below
    table[keys[-1]] = value
    return True


def _plain(error: ValidationError, recipe: type[Section], where: str) -> RecipeError:
    """One of pydantic's complaints as a problem and a remedy: an unknown key first, since it explains missing ones."""
    complaints = [(_location(recipe, one["loc"]), one) for one in error.errors(include_url=False)]
    location, first = next((item for item in complaints if item[1]["type"] == "extra_forbidden"), complaints[0])
    key = ".".join(location)
    more = len({place for place, _ in complaints}) - 1
    others = f" ({more} more after it)" if more else ""
    section = _walk(recipe, location)
    if first["type"] == "extra_forbidden":
        known = _keys(recipe, location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        hint = f"Did you mean {'.'.join([*location[:-1], near[0]])}?" if near else f"Known here: {', '.join(known)}."
        kind = "section" if isinstance(first["input"], dict) else "key"
        return RecipeError(f"{where}: unknown {kind} {key}{others}.", hint)
    if first["type"] == "missing" and section:
        return RecipeError(f"{where}: the section [{key}] is missing{others}.", f"Add [{key}] and its keys below it.")
    description = _describe(recipe, location)
    if first["type"] == "missing" and location[-1] in _keys(recipe, location[:-1]):
        return RecipeError(f"{where}: {key} is missing{others}.", f"Add {key} = … ({description})")
    if section and first["type"] in ("model_type", "model_attributes_type"):
        return RecipeError(f"{where}: {key} is a section, not a value{others}.", f"Write [{key}] and its keys below.")
    message = " or ".join(dict.fromkeys(_message(one) for place, one in complaints if place == location))
    if section or not key:  # a complaint about several keys says itself which it means
        return RecipeError(_sentence(f"{where}: {message}{others}"), f"Mend [{key}]." if key else "Mend the recipe.")
    got = json.dumps(first["input"], default=str, ensure_ascii=False)
    got = got if len(got) <= 60 else got[:59] + "…"
    if near := difflib.get_close_matches(str(first["input"]), _choices(recipe, location), n=1):
        description = f'Did you mean "{near[0]}"?'
    return RecipeError(_sentence(f"{where}: {key} = {got}: {message}{others}"), description or f"Mend {key}.")


#: pydantic's type of a complaint → what people are told; the rest of its words are good enough.
_PLAIN = {
    "int": "must be a whole number",
    "float": "must be a number",
    "string": "must be a text in quotes",
    "bool": "must be true or false",
    "list": "must be a list, in brackets",
    "tuple": "must be a list, in brackets",
    "dict": "must be a section with keys",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be above {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be below {lt}",
    "literal_error": "must be one of {expected}",
    "missing": "has too few values",
}


def _message(complaint: ErrorDetails) -> str:
    kind = complaint["type"]
    known = _PLAIN.get(kind) or (
        _PLAIN.get(kind.partition("_")[0]) if kind.endswith(("_type", "ing", "float")) else None
    )
    if known:
        return known.format_map(complaint.get("ctx", {})).replace(" one of 'all'", ' "all"')
    message = complaint["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return message[:1].lower() + message[1:]


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."


def _choices(recipe: type[Section], location: Sequence[str]) -> list[str]:
    """What may stand at a key that knows only certain texts."""
    above = _walk(recipe, location[:-1])
    field = above.model_fields.get(location[-1]) if above else None
    branches = [field.annotation, *get_args(field.annotation)] if field else []
    return [str(choice) for branch in branches if get_origin(branch) is Literal for choice in get_args(branch)]


def _location(recipe: type[Section], place: Sequence[str | int]) -> tuple[str, ...]:
    """Where a complaint is, without the names that pydantic gives the branches of a union."""
    location = [str(part) for part in place]
    for end in range(1, len(location)):
        above = _walk(recipe, location[: end - 1])
        field = above.model_fields.get(location[end - 1]) if above else None
        if field and not _model(field.annotation):
            deep = "dict" in str(field.annotation)
            return (*location[:end], *(part for part in location[end:] if deep or part.isdigit()))
    return tuple(location)


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
