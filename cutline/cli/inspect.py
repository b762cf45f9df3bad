"""``cutline inspect``: a dataset, a source or a recipe in; findings, a table and a page out."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from cutline.cli.terminal import bar, say
from cutline.core import config as recipes
from cutline.core.errors import DataError
from cutline.data.context.named_entities import Recogniser
from cutline.data.dataset import MARKER, Dataset
from cutline.data.inspect.contexts import names_in
from cutline.data.inspect.look import Inspection, inspect_dataset, inspect_source
from cutline.data.settings import DataSettings, PrepareRecipe

#: Findings that are told on the terminal; the page has all.
_MOST_TOLD = 12


def run(source: Path, out: Path | None, overrides: Sequence[str], model: str, as_json: bool) -> bool:
    """Inspects, says what was found, and writes the page.

    Args:
        source: a prepared dataset, a run with one, a source of captioned images, or a recipe.
        out: the page; by default <name>-inspection.html in the current folder, and none with JSON.
        model: spaCy pipeline that finds names; "" for a simple rule.
        as_json: print JSON instead of a table.

    Returns:
        Whether no split and no context leaks.
    """
    names: Callable[[str], Collection[str]] = names_in
    named_by = "capitals and numbers"
    if model:
        recogniser = Recogniser(model)
        names, named_by = (lambda text: [name.text for name in recogniser.names(text)]), f"spaCy’s {model}"
    with bar("looking") as progress:
        dataset, settings = _opened(source, overrides)
        if dataset is not None:
            name = source.resolve().name if dataset.path == source else dataset.path.resolve().parent.name
            found = inspect_dataset(dataset, name, progress, names, named_by)
        else:
            assert settings is not None
            found = inspect_source(settings, progress, names, named_by)
    if as_json:
        print(json.dumps(found.to_json(), ensure_ascii=False, indent=2))
    else:
        show(found)
    if out is not None or not as_json:
        from cutline.report import inspection as page

        place = page.write(found, out or Path(f"{found.name}-inspection.html"))
        say(f"page: {place}")
    return not found.leaks


def _opened(source: Path, overrides: Sequence[str]) -> tuple[Dataset | None, DataSettings | None]:
    """What the argument names: a prepared dataset, or a source with its settings."""
    for place in (source, source / "dataset"):
        if (place / MARKER).is_file():
            if overrides:
                raise DataError(f"{place} is prepared; --set changes nothing there.", "Leave --set out.")
            return Dataset.open(place), None
    table = recipes.read_toml(source) if source.suffix == ".toml" else {"data": {"source": str(source)}}
    settings = recipes.parse({"data": table.get("data", {})}, PrepareRecipe, overrides, where=str(source)).data
    if settings.dataset and (Path(settings.dataset) / MARKER).is_file():
        return Dataset.open(settings.dataset), None
    return None, settings


def show(found: Inspection) -> None:
    """The findings and the counts on stdout."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    for one in found.findings[:_MOST_TOLD]:
        console.print(f"[bold]{one.level}:[/bold] {escape(one.says)}", soft_wrap=True)
    if len(found.findings) > _MOST_TOLD:
        console.print(f"and {len(found.findings) - _MOST_TOLD} more, on the page")
    if not found.findings:
        console.print("nothing that would spoil a training or flatter a score")
    captions = found.captions
    images = sum(captions.images.values())
    table = Table(title=f"{images:,} image{'s' * (images != 1)}", title_justify="left")
    table.add_column("split", no_wrap=True)
    for heading in ("images", "captions", "captions an image"):
        table.add_column(heading, justify="right")
    for name, images in captions.images.items():
        many = captions.captions[name]
        table.add_row(escape(name or "none"), f"{images:,}", f"{many:,}", f"{many / images:.2f}")
    console.print(table)
    if lengths := captions.length_statistics():
        words = captions.vocabulary()
        console.print(
            f"captions: {lengths['min']}–{lengths['max']} words, mean {lengths['mean']:.1f}; {words['words']:,} "
            f"different words, {words['said_once']:,} of them said once; {captions.distinct:,} different captions",
            soft_wrap=True,
        )
    if found.contexts:
        for name, field in found.contexts.fields.items():
            shares = field.shares
            told = [
                f"{shares[f'{kind}_given_away']:.0%} of the captions’ {kind} (another image’s: "
                f"{shares[f'{kind}_given_away_by_chance'] or 0:.0%})"
                for kind in ("names", "words")
                if shares[f"{kind}_given_away"] is not None
            ]
            console.print(
                f"context {escape(repr(name))}: on {field.images:,} of {found.contexts.of:,} images; gives away "
                f"{' and '.join(told) or 'nothing'}: {field.verdict}",
                soft_wrap=True,
            )
