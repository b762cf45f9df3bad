"""Reading recipes: TOML files whose sections are pydantic models.

This file reads and checks sections without knowing which ones exist. Each section's model is in a ``settings.py``
beside the code that uses it, and ``cutline/run/recipe.py`` puts them together.
"""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from cutline.core.errors import RecipeError
from cutline.core.suggest import did_you_mean, nearest


class Section(BaseModel):
    """One section of a recipe. It is frozen; an unknown key is an error."""

    # validated defaults: the default of a float is a float, so a recipe read back from TOML has the same fingerprint
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), validate_default=True)


AnySection = TypeVar("AnySection", bound=Section)


def refused(problem: str) -> Any:
    """The type of a key that may not be set: the section of a plug-in that can't be used."""

    def refuse(value: object) -> None:
        if value is not None:  # the default
            raise ValueError(problem)

    return Annotated[Any, BeforeValidator(refuse)]


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
        table, overrides = _choose_variant(table, overrides, str(path))
    return parse(table, recipe, overrides, where=str(path))


def _choose_variant(table: dict[str, Any], overrides: Sequence[str], where: str) -> tuple[dict[str, Any], list[str]]:
    """The recipe with its chosen variant merged in, and the overrides without the choice."""
    rest = {key: value for key, value in table.items() if key not in ("variant", "variants")}
    variants = table["variants"]
    if not isinstance(variants, dict) or not variants or not all(isinstance(one, dict) for one in variants.values()):
        raise RecipeError(
            f"{where}: [variants] holds something other than sections.",
            "Write [variants.name] and its sections below it.",
        )
    choices = [text.partition("=")[2].strip().strip("\"'") for text in overrides if _key_of(text) == "variant"]
    name = choices[-1] if choices else table.get("variant")
    if name not in variants:
        problem = f"{where}: there is no variant {name!r}." if name else f"{where} has variants, but none is chosen."
        known = f"Variants: {', '.join(variants)}."
        near = nearest(str(name), variants)
        raise RecipeError(problem, f"Did you mean {near}? {known}" if near else known)
    return _merged(rest, variants[name]), [text for text in overrides if _key_of(text) != "variant"]


def _key_of(override: str) -> str:
    return override.partition("=")[0].strip()


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merges two tables section by section; a value of ``above`` overrides one of ``below``."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        RecipeError: absent, a folder, or not TOML.
    """
    path = Path(path)
    if not path.is_file():
        near = nearest(path.name, [other.name for other in path.parent.glob("*.toml")])
        remedy = f"Did you mean {path.parent / near}?" if near else "Give the path of a .toml file."
        raise RecipeError(f"There is no recipe {path}.", remedy)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}.", "Fix that line of the file.") from error


def parse(
    table: Mapping[str, Any], recipe: type[AnySection], overrides: Sequence[str] = (), where: str = "the recipe"
) -> AnySection:
    """Checks a table of values against a recipe's model.

    Args:
        table: section → its keys and values.
        recipe: the model.
        overrides: as for :func:`load`.
        where: what error messages begin with.

    Raises:
        RecipeError: an unknown key (with the nearest known one) or a wrong value.
    """
    values = copy.deepcopy(dict(table))
    texts = dict(_set(values, override) for override in overrides)
    try:
        return recipe.model_validate(values)
    except ValidationError as error:
        wanted = {_keys_of(recipe, one["loc"]) for one in error.errors() if one["type"] == "string_type"}
        numbers = [(keys, text) for keys, text in texts.items() if keys in wanted]
        if not numbers:
            raise _explained(error, recipe, where) from error
    for keys, text in numbers:  # a folder called 2024 is a string, although TOML reads a number
        _put(values, keys, text)
    return parse(values, recipe, where=where)


def _set(table: dict[str, Any], override: str) -> tuple[tuple[str, ...], str]:
    """Puts a ``key=value`` into the table; returns the key's parts and the text of the value."""
    key, equals, text = override.partition("=")
    keys = tuple(part.strip() for part in key.split("."))
    if not equals or not all(keys):
        raise RecipeError(
            f"--set {override} is not of the form section.key=value.", "For example: --set train.epochs=3"
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    if not _put(table, keys, value):
        raise RecipeError(f"--set {override}: {key} is a key of a value, not of a section.", "Give a key of a section.")
    return keys, text


def _put(table: dict[str, Any], keys: Sequence[str], value: Any) -> bool:
    for section in keys[:-1]:
        below = table.setdefault(section, {})
        if not isinstance(below, dict):
            return False
        table = below
    table[keys[-1]] = value
    return True


@dataclass(frozen=True)
class _Complaint:
    """One of pydantic's complaints.

    Attributes:
        keys: the path of the key, without the names that pydantic gives the branches of a union.
        error: pydantic's name of the error, such as "missing".
        value: the value of the key.
        message: what is wrong.
        model: the recipe.
    """

    keys: tuple[str, ...]
    error: str
    value: Any
    message: str
    model: type[Section]

    @classmethod
    def of(cls, details: ErrorDetails, model: type[Section]) -> _Complaint:
        keys = _keys_of(model, details["loc"])
        return cls(keys, details["type"], details["input"], _message(details), model)

    @property
    def key(self) -> str:
        return ".".join(self.keys)

    @property
    def section(self) -> type[Section] | None:
        """The model at the key, where that is a section."""
        return _section_at(self.model, self.keys)

    @property
    def siblings(self) -> list[str]:
        """The known keys of the same section."""
        above = _section_at(self.model, self.keys[:-1])
        return list(above.model_fields) if above else []

    @property
    def description(self) -> str:
        """The key's description; for an item of a list, that of the list. "" when there is none."""
        for end in range(len(self.keys), 0, -1):
            above = _section_at(self.model, self.keys[: end - 1])
            if above and self.keys[end - 1] in above.model_fields:
                text = above.model_fields[self.keys[end - 1]].description
                return f"{'.'.join(self.keys[:end])}: {text}" if text else ""
        return ""

    @property
    def choices(self) -> list[str]:
        """The values of a key that takes one of a few strings."""
        above = _section_at(self.model, self.keys[:-1])
        field = above.model_fields.get(self.keys[-1]) if above else None
        branches = [field.annotation, *get_args(field.annotation)] if field else []
        return [str(choice) for branch in branches if get_origin(branch) is Literal for choice in get_args(branch)]


def _explained(error: ValidationError, model: type[Section], where: str) -> RecipeError:
    """The first complaint as an error; an unknown key comes first, since others may follow from it."""
    complaints = [_Complaint.of(details, model) for details in error.errors(include_url=False)]
    first = next((one for one in complaints if one.error == "extra_forbidden"), complaints[0])
    same = [one.message for one in complaints if one.keys == first.keys]
    first = replace(first, message=" or ".join(dict.fromkeys(same)))
    problem, remedy = _EXPLAIN.get(first.error, _explain_value)(first)
    others = len({one.keys for one in complaints}) - 1
    more = f" ({others} more)" if others else ""
    text = f"{where}: {problem}{more}"
    return RecipeError(text if text.endswith((".", "?")) else f"{text}.", remedy)


def _explain_unknown(one: _Complaint) -> tuple[str, str]:
    kind = "section" if isinstance(one.value, dict) else "key"
    known = f"Known: {', '.join(one.siblings)}."
    remedy = did_you_mean(one.keys[-1], one.siblings, known, form=".".join([*one.keys[:-1], "{}"]))
    return f"unknown {kind} {one.key}", remedy


def _explain_missing(one: _Complaint) -> tuple[str, str]:
    if one.section:
        return f"the section [{one.key}] is missing", f"Add [{one.key}] and its keys below it."
    if one.keys[-1] in one.siblings:
        return f"{one.key} is missing", f"Add {one.key} = … ({one.description})"
    return _explain_value(one)  # an item of a list


def _explain_no_section(one: _Complaint) -> tuple[str, str]:
    if one.section:
        return f"{one.key} is a section, not a value", f"Write [{one.key}] and its keys below it."
    return _explain_value(one)


def _explain_value(one: _Complaint) -> tuple[str, str]:
    if one.section or not one.keys:  # a check of several keys names them itself
        return one.message, f"Fix [{one.key}]." if one.key else "Fix the recipe."
    value = json.dumps(one.value, default=str, ensure_ascii=False)
    value = value if len(value) <= 60 else value[:59] + "…"
    remedy = did_you_mean(str(one.value), one.choices, one.description or f"Fix {one.key}.", form='"{}"')
    return f"{one.key} = {value}: {one.message}", remedy


#: pydantic's type of an error → what explains it; other types are about a value.
_EXPLAIN: dict[str, Callable[[_Complaint], tuple[str, str]]] = {
    "extra_forbidden": _explain_unknown,
    "missing": _explain_missing,
    "model_type": _explain_no_section,
    "model_attributes_type": _explain_no_section,
}

#: pydantic's type of an error, or the first word of it → what is wrong; pydantic's other messages are plain enough.
_MESSAGES = {
    "int": "must be a whole number",
    "float": "must be a number",
    "string": "must be a string in quotes",
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


def _message(details: ErrorDetails) -> str:
    kind = details["type"]
    plain = _MESSAGES.get(kind)
    if plain is None and kind.endswith(("_type", "_parsing", "_from_float")):
        plain = _MESSAGES.get(kind.partition("_")[0])
    if plain is not None:
        return plain.format_map(details.get("ctx", {})).replace(" one of 'all'", ' "all"')
    message = details["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return message[:1].lower() + message[1:]


def _keys_of(model: type[Section], loc: Sequence[str | int]) -> tuple[str, ...]:
    """The keys that pydantic's ``loc`` names, without the names that it gives the branches of a union."""
    parts = [str(part) for part in loc]
    for depth, part in enumerate(parts):
        above = _section_at(model, parts[:depth])
        field = above.model_fields.get(part) if above else None
        if field and not _section_in(field.annotation):  # a value: what follows are items, or branches of a union
            has_keys = "dict" in str(field.annotation)
            return (*parts[: depth + 1], *(rest for rest in parts[depth + 1 :] if has_keys or rest.isdigit()))
    return tuple(parts)


def _section_in(annotation: Any) -> type[Section] | None:
    """The section inside an annotation such as ``TrainSettings | None``."""
    if get_origin(annotation) in (Union, UnionType):
        return next((section for section in map(_section_in, get_args(annotation)) if section), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _section_at(model: type[Section], keys: Sequence[str]) -> type[Section] | None:
    """The model of the section that a path of keys leads to; None for a value."""
    section: type[Section] | None = model
    for key in keys:
        field = section.model_fields.get(key) if section else None
        section = _section_in(field.annotation) if field else None
    return section


def to_toml(section: Section) -> str:
    """A recipe as TOML, with all defaults; keys whose value is None are left out."""
    table: dict[str, Any] = _without_none(section.model_dump(mode="json"))
    return tomli_w.dumps(table)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value
