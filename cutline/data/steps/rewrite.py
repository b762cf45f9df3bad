"""Rewrites an image's address to its best rendition, by rules that are data (``rewrite.toml`` and the recipe's own)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from cutline.core.config import Section
from cutline.core.records import Sample
from cutline.data.addresses import ORIGINAL, is_address
from cutline.data.step import Workspace

DESCRIPTION = "addresses of images → addresses of their best renditions"
PHASE: Literal["reading"] = "reading"
ORDER = 10
REASONS: dict[str, str] = {}


class Rule(Section):
    """[data.steps.rewrite.own.<name>]: one rule."""

    match: str = Field(description="regular expression that must match the whole URL")
    replace: str = Field(description=r"the new URL; \g<name> and \1 stand for groups of `match`")

    @model_validator(mode="after")
    def _compiles(self) -> Rule:
        try:
            self.pattern()
            re.compile(self.match).sub(self.replace, "")
        except (re.error, IndexError) as error:
            raise ValueError(f"match and replace don't go together: {error}") from error
        return self

    def pattern(self) -> re.Pattern[str]:
        return re.compile(self.match)


class RewriteSettings(Section):
    """[data.steps.rewrite]"""

    rules: list[str] = Field(
        default=["nyt", "wikimedia", "wordpress", "flickr"],
        description="names of built-in rules, in the order in which they are tried; the first match is used",
    )
    own: dict[str, Rule] = Field(
        default={},
        description="your own rules, tried before the built-in ones: own.<name> = {match = …, replace = …}",
    )

    @model_validator(mode="after")
    def _rules_exist(self) -> RewriteSettings:
        for name in self.rules:
            if name not in known():
                raise ValueError(f"there is no rule {name!r}; known: {', '.join(known())}")
        return self


SETTINGS = RewriteSettings


@cache
def known() -> dict[str, Rule]:
    """The rules that Cutline brings."""
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return {name: Rule(**rule) for name, rule in table.items()}


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Sample → sample with the best address; the source's own is kept, to be tried when that one has no image."""

    rules: Sequence[tuple[re.Pattern[str], str]]

    def address(self, address: str) -> str:
        """The best address that the rules know; the same when none fits."""
        for pattern, replacement in self.rules:
            if found := pattern.fullmatch(address):
                return found.expand(replacement)
        return address

    def __call__(self, sample: Sample) -> Sample:
        if not is_address(sample.image):
            return sample
        best = self.address(sample.image.strip())
        if best == sample.image:
            return sample
        return replace(sample, image=best, extra={**sample.extra, ORIGINAL: sample.image})


def open(settings: RewriteSettings, workspace: Workspace | None = None) -> Rewrite:
    chosen = [*settings.own.values(), *(known()[name] for name in settings.rules)]
    return Rewrite([(rule.pattern(), rule.replace) for rule in chosen])
