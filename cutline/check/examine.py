"""Goes through the probes and gathers their verdicts."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from graphlib import TopologicalSorter
from types import ModuleType

from cutline.check import probes
from cutline.check.subject import Subject
from cutline.check.verdict import Finding, Verdict, failed, not_applicable, not_judged
from cutline.core.errors import CutlineError


def ordered() -> list[str]:
    """The probes in the order in which they are made: by stage, and after those that would explain their failure."""
    known = {name: probes.PLUGINS.load(name) for name in probes.PLUGINS.usable()}
    found: list[str] = []
    for stage in probes.STAGES:
        mine = {name: module for name, module in known.items() if stage == module.STAGE}
        sorter = TopologicalSorter({name: set(module.AFTER) & mine.keys() for name, module in mine.items()})
        sorter.prepare()
        while sorter.is_active():
            ready = sorted(sorter.get_ready())
            found += ready
            sorter.done(*ready)
    return found


def examine(subject: Subject, only: Collection[str] = (), *, debug: bool = False) -> Iterator[Verdict]:
    """Makes the probes, each verdict as soon as it is there.

    Args:
        subject: what is probed.
        only: names of probes; all by default.
        debug: an error of the model is raised instead of being a failure.

    Raises:
        RecipeError: there is no such probe.
    """
    for name in only:
        probes.PLUGINS.load(name)
    known = ordered()
    roots: dict[str, str] = {}  # a probe that didn't pass → the failed one that explains it
    for name in known:
        if only and name not in only:
            continue
        module = probes.PLUGINS.load(name)
        begun = time.monotonic()
        root = next((roots[cause] for cause in module.AFTER if cause in roots), None)
        if root:
            found = not_judged(f"the probe {root} failed, and would make this one fail, too")
            roots[name] = root
        else:
            found = _find(module, subject, debug)
        if found.status == "failed":
            roots[name] = name
        yield Verdict(
            probe=name,
            stage=module.STAGE,
            title=module.TITLE,
            status=found.status,
            what=found.what,
            why=module.WHY,
            remedy=found.remedy,
            seconds=round(time.monotonic() - begun, 2),
        )


def _find(module: ModuleType, subject: Subject, debug: bool) -> Finding:
    """What a probe finds; a model that stops with an error has failed it."""
    for_retrieval = (subject.train and subject.train.retrieval) or "caption" not in subject.family.tasks
    if module.STAGE != "data" and for_retrieval:
        return not_applicable("it is about captions, and this recipe is for retrieval")
    try:
        found: Finding = module.probe(subject)
    except CutlineError as error:
        found = failed(error.problem, error.remedy)
    except Exception as error:
        if debug:
            raise
        words = " ".join(str(error).split())[:300]
        found = failed(
            f"it could not be found out, because the model stopped with {type(error).__name__}: {words}",
            "Mend what the message names; --debug shows where it was.",
        )
    return found
