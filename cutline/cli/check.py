"""``cutline check``: probes a recipe before it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutline.cli.options import Debug, Json, RecipePath, RecipeSet, RunOut, Tiny, listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cutline.check.result import ProbeReport
    from cutline.run.run import Run

_MARKS = {"passed": "passed", "failed": "FAILED", "not applicable": "–", "not judged": "not judged"}


def check(
    recipe: RecipePath,
    out: RunOut = None,
    overrides: RecipeSet = [],
    tiny: Tiny = False,
    only: Annotated[str, typer.Option(help="Only these probes, separated by commas; all by default.")] = "",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Probe what a recipe would train: labels, leaks, end token, batches, checkpoint, data.

    A probe passes, fails or does not apply. For a failure, the output tells what was found, why it matters and how to
    fix it, and the exit code is 1. With --debug an error of the model is raised instead of reported.
    """
    from cutline.cli.tables import print_json
    from cutline.cli.terminal import bar, say, set_threads
    from cutline.run.run import open_run

    reports, result = probe(
        open_run(recipe, out, overrides, tiny=tiny, bars=bar, set_threads=set_threads), listed(only), debug=debug
    )
    if as_json:
        print_json(result)
    else:
        _show(reports)
    say(_summary(reports, result))
    if not result["passed"]:
        raise typer.Exit(1)


def probe(run: Run, only: Sequence[str] = (), *, debug: bool = False) -> tuple[list[ProbeReport], dict[str, Any]]:
    """Prepares the data if necessary, opens the model, probes both, and writes ``check.json``.

    Args:
        run: the recipe in its folder, which ``check.json`` goes to.
        only: names of probes; all when empty.
        debug: raise an error of the model instead of reporting it as a failure.

    Returns:
        The reports, and what ``check.json`` holds.
    """
    import json
    import shutil
    import time
    from functools import partial

    from cutline.check.runner import run_probes
    from cutline.check.subject import ProbeSubject
    from cutline.core.files import write_atomically

    start = time.monotonic()
    run(("prepare",))
    run.check_data()
    dataset = run.dataset()
    scratch = run.folder / "check"
    family = run.open_family()
    family.generation = None
    subject = ProbeSubject(
        family,
        dataset.split(dataset.default_split("train", "val", "test"))[:200],
        train=run.recipe.train,
        generate=run.recipe.generate,
        reopen=run.open_family,
        tiny=run.tiny,
        scratch=scratch,
        dataset=dataset,
        # on the CPU: the GPU may not have room for both
        open_unquantized=partial(run.open_family, quantize="none", device="cpu") if family.quantized else None,
    )
    reports: list[ProbeReport] = []
    try:
        with run.bars("probing") as progress:
            for report in run_probes(subject, only, debug=debug):
                reports.append(report)
                progress(len(reports), len(only) or len(reports))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    result = {
        "passed": not any(report.status == "failed" for report in reports),
        "family": family.name(),
        "tiny": run.tiny,
        "seconds": round(time.monotonic() - start, 1),
        "probes": [report.to_json() for report in reports],
    }
    write_atomically(run.folder / "check.json", json.dumps(result, ensure_ascii=False, indent=2) + "\n")
    return reports, result


def _show(reports: Sequence[ProbeReport]) -> None:
    """A table with a row for each probe, and below it the details and remedy of each failure."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("probe", "result", "details")
    stage = None
    for report in reports:
        if stage is not None and report.stage != stage:
            table.add_section()
        stage = report.stage
        style = {"failed": "bold red", "passed": "green"}.get(report.status, "dim")
        table.add_row(report.title, f"[{style}]{_MARKS[report.status]}[/]", report.message)
    console.print(table)
    for report in reports:
        if report.status == "failed":
            console.print(f"\n[bold red]FAILED[/] {report.title} ({report.probe})", highlight=False)
            for name, text in (("found", report.message), ("why it matters", report.why), ("remedy", report.remedy)):
                console.print(f"  {name}: {text}", markup=False, highlight=False)


def _summary(reports: Sequence[ProbeReport], result: dict[str, Any]) -> str:
    counts = {status: sum(report.status == status for report in reports) for status in _MARKS}
    parts = [f"{count} {status}" for status, count in counts.items() if count]
    model = f"a miniature of {result['family']}" if result["tiny"] else result["family"]
    return f"check: {', '.join(parts)}; {model}, {result['seconds']:.0f} s"
