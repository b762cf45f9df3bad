"""``cutline retrieve index``: builds or updates an index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cutline.cli.options import Device

if TYPE_CHECKING:
    from collections.abc import Mapping


def index(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A checkpoint folder or hub name, or a run folder.")],
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A prepared dataset.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the index.")],
    split: Annotated[str, typer.Option(help="Split of the dataset; all by default.")] = "",
    prune: Annotated[bool, typer.Option("--prune", help="Remove what is no longer in the dataset.")] = False,
    approximate: Annotated[
        bool | None,
        typer.Option(
            "--approximate/--no-approximate",
            help="Search large indices faster, with FAISS; the index remembers the choice.",
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Build an index of a dataset's images and captions, or update one.

    Only new and changed images and captions are embedded. If it is interrupted, the old index stays unchanged, and the
    same command starts over. Exit code 1 when images could not be opened.
    """
    import os
    import time

    from cutline.cli.terminal import bar, say, set_threads
    from cutline.core.fingerprint import checkpoint_fingerprint
    from cutline.data.dataset import Dataset
    from cutline.families.common.retrieval import as_embedder
    from cutline.families.open import open_checkpoint
    from cutline.retrieve.index import Index, update

    data = Dataset.open(dataset)
    samples = list(data.split(split) if split else data)
    family = open_checkpoint(model, "float32", device, task="embed", set_threads=set_threads)
    name = os.path.abspath(model) if Path(model).is_dir() else model  # so that searches work from any folder
    start = time.monotonic()
    with bar("embedding") as progress:
        change = update(
            out,
            as_embedder(family),
            checkpoint_fingerprint(model),
            name,
            samples,
            prune=prune,
            approximate=approximate,
            progress=progress,
        )
    for id, problem in change.failed.items():
        say(f"left out: {id}: {problem}")
    seconds = time.monotonic() - start
    say(f"{change.added:,} added, {change.removed:,} removed or replaced, {change.kept:,} unchanged; {seconds:.0f} s")
    facts = Index.open(out).facts
    say(f"index: {out} ({facts['images']:,} images, {facts['texts']:,} captions)")
    _describe_approximation(facts)
    if change.failed:
        raise typer.Exit(1)


def _describe_approximation(facts: Mapping[str, Any]) -> None:
    """Prints how good the approximate search is, if the index has one."""
    from cutline.cli.terminal import say
    from cutline.retrieve.approximate import FEW, RECALL

    if "approximate" in facts and not facts["approximate"]:
        say(f"no approximate structure: up to {FEW:,} images or captions, an exact scan is as fast")
    for kind, about in facts.get("approximate", {}).items():
        say(
            f"{'images' if kind == 'image' else 'captions'}: approximate search of {about['probes']:,} of "
            f"{about['lists']:,} lists finds {about['recall']:.3f} of the ten nearest; search --exact finds all"
        )
        if about["recall"] < RECALL:
            say(f"that is less than {RECALL}; --no-approximate scans exactly instead")
