"""``cutline check``: probes a recipe before it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutline.cli.options import Debug, Json, RecipePath, RecipeSet, RunOut, Tiny, listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cutline.check.verdict import Verdict
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

    Each probe passes, fails (and says what was seen, why it matters and what to do), or does not apply. Exit code 1
    when a probe fails. With --debug an error of the model is raised instead of reported.
    """
    from cutline.cli.tables import print_json
    from cutline.cli.terminal import bar, say, set_threads
    from cutline.run.run import open_run

    verdicts, result = probe(
        open_run(recipe, out, overrides, tiny=tiny, bars=bar, set_threads=set_threads), listed(only), debug=debug
    )
    if as_json:
        print_json(result)
    else:
        _show(verdicts)
    say(_summary(verdicts, result))
    if not result["passed"]:
        raise typer.Exit(1)


def probe(run: Run, only: Sequence[str] = (), *, debug: bool = False) -> tuple[list[Verdict], dict[str, Any]]:
    """Prepares the data, unless that is done, opens the model, probes both, and writes ``check.json``.

    Args:
        run: the recipe in its folder, which ``check.json`` goes to.
        only: names of probes; all when empty.
        debug: raise an error of the model instead of making it a verdict.

    Returns:
        The verdicts, and what ``check.json`` holds.
    """
    import json
    import shutil
    import time
    from functools import partial

    from cutline.check.examine import examine
    from cutline.check.subject import Subject
    from cutline.core.files import write_atomically

    start = time.monotonic()
    run(("prepare",))
    run.check_data()
    dataset = run.dataset()
    scratch = run.folder / "check"
    family = run.open_family()
    family.generation = None
    subject = Subject(
        family,
        dataset.split(dataset.default_split("train", "val", "test"))[:200],
        train=run.recipe.train,
        generate=run.recipe.generate,
        fresh=run.open_family,
        tiny=run.tiny,
        scratch=scratch,
        dataset=dataset,
        # on the CPU: beside its quantised self it may be too much for the GPU
        whole=partial(run.open_family, quantize="none", device="cpu") if family.quantized else None,
    )
    verdicts: list[Verdict] = []
    try:
        with run.bars("probing") as progress:
            for verdict in examine(subject, only, debug=debug):
                verdicts.append(verdict)
                progress(len(verdicts), len(only) or len(verdicts))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    result = {
        "passed": not any(verdict.status == "failed" for verdict in verdicts),
        "family": family.name(),
        "tiny": run.tiny,
        "seconds": round(time.monotonic() - start, 1),
        "probes": [verdict.to_json() for verdict in verdicts],
    }
    write_atomically(run.folder / "check.json", json.dumps(result, ensure_ascii=False, indent=2) + "\n")
    return verdicts, result


def _show(verdicts: Sequence[Verdict]) -> None:
    """A line for each probe, and below the table what to do about those that failed."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("probe", "verdict", "what was seen")
    stage = None
    for verdict in verdicts:
        if stage is not None and verdict.stage != stage:
            table.add_section()
        stage = verdict.stage
        style = {"failed": "bold red", "passed": "green"}.get(verdict.status, "dim")
        table.add_row(verdict.title, f"[{style}]{_MARKS[verdict.status]}[/]", verdict.what)
    console.print(table)
    for verdict in verdicts:
        if verdict.status == "failed":
            console.print(f"\n[bold red]FAILED[/] {verdict.title} ({verdict.probe})", highlight=False)
            for name, text in (("seen", verdict.what), ("why it matters", verdict.why), ("remedy", verdict.remedy)):
                console.print(f"  {name}: {text}", markup=False, highlight=False)


def _summary(verdicts: Sequence[Verdict], result: dict[str, Any]) -> str:
    counts = {status: sum(verdict.status == status for verdict in verdicts) for status in _MARKS}
    parts = [f"{count} {status}" for status, count in counts.items() if count]
    model = f"a miniature of {result['family']}" if result["tiny"] else result["family"]
    return f"check: {', '.join(parts)}; {model}, {result['seconds']:.0f} s"
