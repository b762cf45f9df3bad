"""``cutline inspect``: the contents of a dataset or a source, and its problems."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cutline.cli.options import RecipeSet

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from cutline.core.progress import Progress
    from cutline.data.inspect.inspection import Inspection

#: How many findings are printed; the page shows all.
SHOWN = 12


def inspect(
    source: Annotated[Path, typer.Argument(metavar="DATASET", help="A prepared dataset, a run, a source, a recipe.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The page; <name>-inspection.html by default.")
    ] = None,
    overrides: RecipeSet = [],
    names: Annotated[
        str, typer.Option(metavar="MODEL", help="spaCy pipeline that finds names; a simple rule by default.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and write a page only with --out.")] = False,
) -> None:
    """Inspect a dataset or a source, and write a page about it, with the worst finding first.

    Repeated captions, images in two splits, broken images, sizes, lengths, languages, and how much of the captions the
    context gives away. Nothing but the page is written. Exit code 1 when a split or the context leaks.
    """
    from cutline.cli.tables import print_json
    from cutline.cli.terminal import bar, say
    from cutline.data.context.named_entities import Recogniser
    from cutline.data.inspect.contexts import names_in
    from cutline.report import inspection as page

    find_names: Callable[[str], Collection[str]] = names_in
    named_by = "capitals and numbers"
    if names:
        recogniser = Recogniser(names)
        find_names, named_by = (lambda text: [name.text for name in recogniser.names(text)]), f"spaCy’s {names}"
    with bar("inspecting") as progress:
        inspection = _inspect(source, overrides, progress, find_names, named_by)
    if as_json:
        print_json(inspection.to_json())
    else:
        _show(inspection)
    if out is not None or not as_json:
        say(f"page: {page.write(inspection, out or Path(f'{inspection.name}-inspection.html'))}")
    if inspection.leaks:
        raise typer.Exit(1)


def _inspect(
    source: Path,
    overrides: Sequence[str],
    progress: Progress,
    names: Callable[[str], Collection[str]],
    named_by: str,
) -> Inspection:
    """Inspects a prepared dataset, the dataset of a run, a source, or a recipe's source."""
    from cutline.core import config
    from cutline.core.errors import DataError
    from cutline.data.dataset import MARKER, Dataset
    from cutline.data.inspect.inspection import inspect_dataset, inspect_source
    from cutline.data.settings import PrepareRecipe

    for folder in (source, source / "dataset"):
        if (folder / MARKER).is_file():
            if overrides:
                raise DataError(f"{folder} is already prepared; --set has no effect on it.", "Leave --set out.")
            return inspect_dataset(Dataset.open(folder), source.resolve().name, progress, names, named_by)
    table = config.read_toml(source) if source.suffix == ".toml" else {"data": {"source": str(source)}}
    settings = config.parse({"data": table.get("data", {})}, PrepareRecipe, overrides, where=str(source)).data
    if settings.dataset and (Path(settings.dataset) / MARKER).is_file():
        folder = Path(settings.dataset)
        return inspect_dataset(Dataset.open(folder), folder.resolve().parent.name, progress, names, named_by)
    return inspect_source(settings, progress, names, named_by)


def _show(inspection: Inspection) -> None:
    """Prints the findings and the counts."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    for finding in inspection.findings[:SHOWN]:
        console.print(f"[bold]{finding.level}:[/bold] {escape(finding.message)}", soft_wrap=True)
    if len(inspection.findings) > SHOWN:
        console.print(f"and {len(inspection.findings) - SHOWN} more, on the page")
    if not inspection.findings:
        console.print("no problems found")
    captions = inspection.captions
    images = sum(captions.images.values())
    table = Table(title=f"{images:,} image{'s' * (images != 1)}", title_justify="left")
    table.add_column("split", no_wrap=True)
    for heading in ("images", "captions", "captions per image"):
        table.add_column(heading, justify="right")
    for name, images in captions.images.items():
        count = captions.captions[name]
        table.add_row(escape(name or "none"), f"{images:,}", f"{count:,}", f"{count / images:.2f}")
    console.print(table)
    if lengths := captions.length_statistics():
        words = captions.vocabulary()
        console.print(
            f"captions: {lengths['min']}–{lengths['max']} words, mean {lengths['mean']:.1f}; {words['words']:,} "
            f"different words, {words['used_once']:,} of them used once; {captions.distinct:,} different captions",
            soft_wrap=True,
        )
    if inspection.contexts:
        for name, field in inspection.contexts.fields.items():
            shares = field.shares
            given_away = [
                f"{shares[f'{kind}_given_away']:.0%} of the captions’ {kind} (another image’s: "
                f"{shares[f'{kind}_given_away_by_chance'] or 0:.0%})"
                for kind in ("names", "words")
                if shares[f"{kind}_given_away"] is not None
            ]
            console.print(
                f"context {escape(repr(name))}: on {field.images:,} of {inspection.contexts.captioned:,} images; "
                f"gives away {' and '.join(given_away) or 'nothing'}: {field.relation}",
                soft_wrap=True,
            )
