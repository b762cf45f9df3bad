"""``cutline bootstrap``: which models, which images, which folder, and what is said at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from cutline.cli.terminal import bar, say
from cutline.core.errors import CutlineError


def bootstrap(
    web: Annotated[
        str,
        typer.Argument(metavar="WEB", help="A prepared dataset of web images, with the captions found beside them."),
    ],
    filter: Annotated[str, typer.Option(metavar="MODEL", help="A checkpoint that matches, or a run folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the captions, the merged dataset, the page.")],
    captioner: Annotated[
        str, typer.Option(metavar="MODEL", help="A checkpoint that captions; without one web captions are filtered.")
    ] = "",
    split: Annotated[str, typer.Option(help="Of WEB; all by default.")] = "",
    human: Annotated[
        str, typer.Option(metavar="DATASET", help="A prepared dataset that the kept captions join; none by default.")
    ] = "",
    set: Annotated[
        list[str],
        typer.Option("--set", metavar="KEY=VALUE", help="A key of [bootstrap]: keep.share=0.6, generate.top_p=0.95."),
    ] = [],  # noqa: B006
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew instead of going on.")] = False,
    device: Annotated[str, typer.Option(help='"auto", "cpu", "cuda", "cuda:1", "mps".')] = "auto",
    dtype: Annotated[str, typer.Option(help='"float32", "bfloat16", "float16".')] = "float32",
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
) -> None:
    """Write captions for web images, drop those that don't fit, the web's own and the written ones, and join the rest.

    One round of CapFilt. OUT/dataset is a dataset to train on; each sample says where its captions came from;
    OUT/report.html shows what was kept and dropped. Killed at any moment, it goes on where it stopped. Other keys of
    [bootstrap.keep] change only what is kept, at once. Exit code 1 when images could not be captioned or scored.
    """
    from cutline.bootstrap import bootstrap as job
    from cutline.bootstrap.settings import BootstrapSettings
    from cutline.core import config as recipe
    from cutline.core.fingerprint import checkpoint_fingerprint
    from cutline.core.verbosity import quiet_libraries
    from cutline.data.dataset import MARKER, Dataset
    from cutline.families.open import open_checkpoint, spare_threads
    from cutline.families.settings import Dtype

    quiet_libraries()
    said = {} if captioner else {"captions": 0}
    settings = recipe.parse(said, BootstrapSettings, set, where="--set")
    if settings.captions and not captioner:
        raise CutlineError(f"captions = {settings.captions}, and no model to write them.", "Give --captioner MODEL.")
    if (out / MARKER).exists():
        raise CutlineError(f"{out} is a dataset; a round needs a folder of its own.", "Give another --out.")
    if overwrite and (out / "made-by.json").exists():
        job.forget(out)
    data = Dataset.open(web).split(split) if split else Dataset.open(web)
    weights = cast(Dtype, dtype)
    matcher = open_checkpoint(filter, weights, device, task="match")
    spare_threads(matcher)
    writer = None
    if settings.captions:
        same = captioner == filter and "caption" in matcher.can
        writer = matcher if same else open_checkpoint(captioner, weights, device)
    made_by = {
        "captioner": checkpoint_fingerprint(captioner) if captioner else "",
        "filter": checkpoint_fingerprint(filter),
        "dtype": dtype,
    }
    found = job.bootstrap(writer, matcher, data, Dataset.open(human) if human else None, settings, out, made_by, bar)
    for sentence in job.words(found):
        say(sentence)
    for id, problem in list(found.failed.items())[:5]:
        say(f"lost: {id}: {problem}")
    say(f"dataset: {found.merged.path}; page: {job.report(found, data, settings, out)}")
    if found.failed or found.uncaptioned:
        raise typer.Exit(1)
