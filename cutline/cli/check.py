"""``cutline check``: probes a recipe, prints the verdicts, and keeps them in the run folder."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from functools import partial

from cutline.check.examine import examine
from cutline.check.subject import Subject
from cutline.check.verdict import Verdict
from cutline.cli.terminal import bar, say
from cutline.core.files import write_atomically
from cutline.run.run import Run

_MARKS = {"passed": "passed", "failed": "FAILED", "not applicable": "–", "not judged": "not judged"}


def run(run: Run, only: Sequence[str], as_json: bool, debug: bool = False) -> bool:
    """Prepares the data where that isn't done, opens the model, and makes the probes.

    Args:
        run: the recipe in its folder; ``check.json`` goes there.
        only: names of probes; all when empty.
        as_json: for programs instead of people.
        debug: an error of the model is raised instead of being a verdict.

    Returns:
        Whether no probe failed.
    """
    begun = time.monotonic()
    run(("prepare",))
    run.refuse_data()
    scratch = run.folder / "check"
    dataset = run.dataset()
    samples = dataset.split(dataset.default_split("train", "val", "test"))[:200]
    family = run.open_family()
    family.generation = None
    subject = Subject(
        family,
        samples,
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
        with bar("probing") as progress:
            for verdict in examine(subject, only, debug=debug):
                verdicts.append(verdict)
                progress(len(verdicts), len(only) or len(verdicts))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    found = {
        "passed": not any(verdict.status == "failed" for verdict in verdicts),
        "family": family.name(),
        "tiny": run.tiny,
        "seconds": round(time.monotonic() - begun, 1),
        "probes": [verdict.to_json() for verdict in verdicts],
    }
    text = json.dumps(found, ensure_ascii=False, indent=2)
    write_atomically(run.folder / "check.json", text + "\n")
    if as_json:
        print(text)
    else:
        _show(verdicts)
    _sum_up(verdicts, family.name(), run.tiny, time.monotonic() - begun)
    return bool(found["passed"])


def _show(verdicts: Sequence[Verdict]) -> None:
    """A line for each probe, and below the table what is to be done about those that failed."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("probe", "verdict", "what was seen")
    for place, verdict in enumerate(verdicts):
        if place and verdict.stage != verdicts[place - 1].stage:
            table.add_section()
        style = {"failed": "bold red", "passed": "green"}.get(verdict.status, "dim")
        table.add_row(verdict.title, f"[{style}]{_MARKS[verdict.status]}[/]", verdict.what)
    console.print(table)
    for verdict in verdicts:
        if verdict.status == "failed":
            console.print(f"\n[bold red]FAILED[/] {verdict.title} ({verdict.probe})", highlight=False)
            for name, text in (("seen", verdict.what), ("why it matters", verdict.why), ("remedy", verdict.remedy)):
                console.print(f"  {name}: {text}", markup=False, highlight=False)


def _sum_up(verdicts: Sequence[Verdict], family: str, tiny: bool, seconds: float) -> None:
    counts = {status: sum(verdict.status == status for verdict in verdicts) for status in _MARKS}
    parts = [f"{count} {status}" for status, count in counts.items() if count]
    what = f"a miniature of {family}" if tiny else family
    say(f"check: {', '.join(parts)}; {what}, {seconds:.0f} s")
