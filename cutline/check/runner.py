"""Runs the probes in order and yields a report for each."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from graphlib import TopologicalSorter
from types import ModuleType

from cutline.check import probes
from cutline.check.result import ProbeReport, ProbeResult, failed, not_applicable, not_judged
from cutline.check.subject import ProbeSubject
from cutline.core.errors import CutlineError


def probe_order() -> list[str]:
    """The names of the probes in the order in which they run: by stage, and within a stage as ``AFTER`` requires."""
    modules = {name: probes.PLUGINS.load(name) for name in probes.PLUGINS.usable()}
    names: list[str] = []
    for stage in probes.STAGES:
        of_stage = {name: module for name, module in modules.items() if stage == module.STAGE}
        sorter = TopologicalSorter({name: set(module.AFTER) & of_stage.keys() for name, module in of_stage.items()})
        sorter.prepare()
        while sorter.is_active():
            ready = sorted(sorter.get_ready())
            names += ready
            sorter.done(*ready)
    return names


def run_probes(subject: ProbeSubject, only: Collection[str] = (), *, debug: bool = False) -> Iterator[ProbeReport]:
    """Runs the probes and yields each report as soon as it is ready.

    Args:
        subject: the model and data to probe.
        only: names of probes to run; all by default.
        debug: raise exceptions of the model instead of reporting them as failures.

    Raises:
        RecipeError: ``only`` contains an unknown name.
    """
    for name in only:
        probes.PLUGINS.load(name)
    explained_by: dict[str, str] = {}  # each failed or skipped probe → the failed probe that explains it
    for name in probe_order():
        if only and name not in only:
            continue
        module = probes.PLUGINS.load(name)
        start = time.monotonic()
        cause = next((explained_by[earlier] for earlier in module.AFTER if earlier in explained_by), None)
        if cause:
            result = not_judged(f"skipped: the probe {cause} failed, which would make this one fail too")
            explained_by[name] = cause
        else:
            result = _run(module, subject, debug)
        if result.status == "failed":
            explained_by[name] = name
        yield ProbeReport(
            probe=name,
            stage=module.STAGE,
            title=module.TITLE,
            status=result.status,
            message=result.message,
            why=module.WHY,
            remedy=result.remedy,
            seconds=round(time.monotonic() - start, 2),
        )


def _run(module: ModuleType, subject: ProbeSubject, debug: bool) -> ProbeResult:
    """The result of one probe. An exception of the model is a failure, unless ``debug`` is set."""
    for_retrieval = (subject.train and subject.train.retrieval) or "caption" not in subject.family.tasks
    if module.STAGE != "data" and for_retrieval:
        return not_applicable("this probe checks captioning, and the recipe trains for retrieval")
    try:
        result: ProbeResult = module.probe(subject)
    except CutlineError as error:
        result = failed(error.problem, error.remedy)
    except Exception as error:
        if debug:
            raise
        text = " ".join(str(error).split())[:300]
        result = failed(
            f"the model raised {type(error).__name__}: {text}",
            "Fix the error that the message names. Use --debug to see the traceback.",
        )
    return result
