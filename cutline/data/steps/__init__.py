"""Steps between a source and a dataset: each file that defines one is a step, chosen in [data.steps].

Other packages add theirs as entry points ``cutline.steps``.

A step module has

    DESCRIPTION                              one line for people
    PHASE, ORDER                             when its turn comes (below); small orders first
    REASONS: dict[str, str]                  reason of a drop → what happened, in a few words
    SETTINGS                                 the Section that is its part of the recipe, [data.steps.<name>]
    open(settings, workspace) -> Step            the step: Sample → Sample | Drop
    ACROSS = True                            where it compares samples with each other, so that it sees all of them

Phases: "reading" – as samples come from the source, before any image is looked at; "images" – the image itself is
brought and stored; "checked" – the image is whole and in the dataset; "end" – all samples together.
Importing a step file must be quick: recipes are read with it. What is heavy is imported in ``open``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from types import TracebackType
from typing import Any, cast

from pydantic import create_model

from cutline.core.config import Section, refused
from cutline.core.errors import RecipeError
from cutline.core.plugins import Plugins
from cutline.core.records import Sample
from cutline.data.problem import Problem
from cutline.data.step import PHASES, Drop, Phase, Step, StepModule, Workspace

PLUGINS = Plugins(
    "steps",
    noun="step",
    package=__name__,
    defines=r"^PHASE\b",
    required={
        "DESCRIPTION": str,
        "PHASE": PHASES,
        "ORDER": int,
        "REASONS": dict,
        "SETTINGS": type(Section),
        "open": Callable,
    },
    error=RecipeError,
)


@cache
def names() -> tuple[str, ...]:
    """All steps that can be imported, in the order in which they are taken."""
    return tuple(sorted(PLUGINS.usable(), key=lambda name: (PHASES.index(load(name).PHASE), load(name).ORDER, name)))


def load(name: str) -> StepModule:
    """Imports one step's file."""
    return cast(StepModule, PLUGINS.load(name))


def needs_no_image(name: str) -> bool:
    """Whether a step can be taken before the images are there."""
    return load(name).PHASE == "reading" or getattr(load(name), "TEXT_ONLY", False)


def reasons() -> dict[str, str]:
    """Why steps drop samples: reason → what happened."""
    return {reason: text for name in names() for reason, text in load(name).REASONS.items()}


class Steps(Section):
    """[data.steps]: which steps are taken; each is a section of its own."""

    @classmethod
    def known(cls) -> type[Steps]:
        """This section with a key for every step."""
        fields: dict[str, Any] = {name: (load(name).SETTINGS | None, None) for name in names()}
        fields |= {name: (refused(problem), None) for name, problem in PLUGINS.broken().items()}
        return create_model("Steps", __base__=cls, **fields)

    def chosen(self, *phases: Phase) -> dict[str, Any]:
        """Name → settings of the steps that the recipe asks for, in their order; of some phases only, or of all."""
        return {
            name: settings
            for name in names()
            if (settings := getattr(self, name, None)) is not None and load(name).PHASE in (phases or PHASES)
        }

    def only(self, wanted: Sequence[str]) -> Steps:
        """The same without the steps that are not wanted."""
        return self.model_copy(update=dict.fromkeys(self.chosen().keys() - set(wanted)))


class Chain:
    """The chosen steps of a phase, one after the other.

    Attributes:
        counts: step → reason → number of samples that it dropped; step → "passed" → those that it let through.
    """

    def __init__(self, settings: Steps, phase: Phase, workspace: Workspace):
        self.steps: list[tuple[str, Step]] = []
        self.counts: dict[str, dict[str, int]] = {}
        try:
            for name, chosen in settings.chosen(phase).items():
                self.steps.append((name, load(name).open(chosen, workspace)))
                self.counts[name] = {"passed": 0}
        except BaseException:
            self.close()
            raise

    def __call__(self, sample: Sample) -> Sample | Problem:
        for name, step in self.steps:
            result = step(sample)
            key = result.reason if isinstance(result, Drop) else "passed"
            self.counts[name][key] = self.counts[name].get(key, 0) + 1
            if isinstance(result, Drop):
                return Problem(id=sample.id, reason=result.reason, detail=result.detail, step=name)
            sample = result
        return sample

    def facts(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What the steps have to say of themselves, beyond the counts."""
        for name, step in self.steps:
            if facts := getattr(step, "facts", None):
                yield name, facts()

    def close(self) -> None:
        for _, step in self.steps:
            if end := getattr(step, "close", None):
                end()

    def __enter__(self) -> Chain:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
