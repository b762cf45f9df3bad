"""``cutline bootstrap``: one round of captioning and filtering web images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from cutline.cli.options import Device, ExactDtype, Overwrite


def bootstrap(
    web: Annotated[
        str,
        typer.Argument(metavar="WEB", help="A prepared dataset of web images with the captions found beside them."),
    ],
    matcher: Annotated[
        str, typer.Option("--filter", metavar="MODEL", help="A checkpoint with a matching head, or a run folder.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the captions, the merged dataset and the report.")
    ],
    captioner: Annotated[
        str,
        typer.Option(metavar="MODEL", help="A checkpoint that captions; without it, only web captions are kept."),
    ] = "",
    split: Annotated[str, typer.Option(help="Split of WEB; all by default.")] = "",
    human: Annotated[
        str, typer.Option(metavar="DATASET", help="A prepared dataset to merge the kept captions with.")
    ] = "",
    overrides: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A key of [bootstrap] (keep.share=0.6, generate.top_p=0.95); can be repeated.",
        ),
    ] = [],
    overwrite: Overwrite = False,
    device: Device = "auto",
    dtype: ExactDtype = "float32",
) -> None:
    """Write captions for web images, drop the web's and the written captions that don't match, and merge the rest.

    One round of CapFilt. OUT/dataset is a dataset to train on, in which each sample says where its captions come from;
    OUT/report.html shows what was kept and dropped. Interrupted at any moment, the same command resumes. Other keys of
    [bootstrap.keep] only choose again, without a model. Exit code 1 when images could not be captioned or scored.
    """
    from cutline.bootstrap import bootstrap as rounds
    from cutline.bootstrap.settings import BootstrapSettings
    from cutline.cli.terminal import bar, say, set_threads
    from cutline.core.config import parse
    from cutline.core.errors import CutlineError
    from cutline.core.fingerprint import checkpoint_fingerprint
    from cutline.data.dataset import MARKER, Dataset
    from cutline.families.open import open_checkpoint
    from cutline.run.stages.bootstrap import write_report

    settings = parse({} if captioner else {"captions": 0}, BootstrapSettings, overrides, where="--set")
    if settings.captions and not captioner:
        raise CutlineError(f"captions = {settings.captions} needs a captioning model.", "Give --captioner MODEL.")
    if (out / MARKER).exists():
        raise CutlineError(f"{out} is a dataset; bootstrapping needs a folder of its own.", "Give another --out.")
    if overwrite and (out / "made-by.json").exists():
        rounds.forget(out)
    data = Dataset.open(web).split(split) if split else Dataset.open(web)
    matching = open_checkpoint(matcher, cast(Any, dtype), device, task="match", set_threads=set_threads)
    writing = None
    if settings.captions:
        same = captioner == matcher and "caption" in matching.tasks
        writing = matching if same else open_checkpoint(captioner, cast(Any, dtype), device)
    made_by = {
        "captioner": checkpoint_fingerprint(captioner) if captioner else "",
        "filter": checkpoint_fingerprint(matcher),
        "dtype": dtype,
    }
    result = rounds.bootstrap(
        writing, matching, data, Dataset.open(human) if human else None, settings, out, made_by, bars=bar
    )
    for sentence in rounds.summary(result):
        say(sentence)
    for id, problem in list(result.failed.items())[:5]:
        say(f"failed: {id}: {problem}")
    say(f"dataset: {result.merged.path}; page: {write_report(result, data, settings, out)}")
    if result.failed or result.uncaptioned:
        raise typer.Exit(1)
