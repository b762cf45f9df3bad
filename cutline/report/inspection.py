"""The findings of ``cutline inspect`` as a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cutline.core.records import Sample
from cutline.data.inspect.contexts import FieldFacts
from cutline.data.inspect.inspection import Inspection
from cutline.data.inspect.pictures import Pair
from cutline.images.open import ImageProblem
from cutline.report import dataset_plots, html
from cutline.report.thumbnails import Thumbnail, thumbnail

#: Pairs of pictures that are shown, and broken images that are named.
_PAIRS, _NAMED = 12, 30

LEVELS = {"leak": "Leak", "problem": "Problem", "note": "Note"}


def write(found: Inspection, path: str | Path) -> Path:
    """Writes the page; returns its path."""
    return html.write(path, render(found))


def render(found: Inspection) -> str:
    """The page as text."""
    captions, pictures = found.captions, found.pictures
    return html.render(
        "inspection.html.jinja",
        "page.css",
        "inspection.css",
        found=found,
        levels=LEVELS,
        deck=deck(found),
        splits=_splits(found),
        counts=_counts(found),
        lengths=Markup(
            dataset_plots.histogram(captions.lengths, "lengths", "words per caption") if captions.total else ""
        ),
        per_image=Markup(
            dataset_plots.histogram(captions.per_image, "per-image", "captions per image")
            if len(captions.per_image) > 1
            else ""
        ),
        sizes=Markup(dataset_plots.sizes(pictures.sizes)),
        size_px=pictures.quantiles(),
        frequent=[
            (one.text, one.images, _thumbnails(paths))
            for one, paths in zip(captions.frequent, found.frequent_images, strict=True)
        ],
        pairs=[_pair(pair) for pair in pictures.pairs[:_PAIRS]],
        broken=pictures.broken_listed[:_NAMED],
        fields=_fields(found),
        cards=[_card(sample) for sample in found.shown],
    )


def deck(found: Inspection) -> list[str]:
    """The sentences under the title: the worst finding, and how many others there are."""
    images, captions = sum(found.captions.images.values()), found.captions.total
    counted = f"{images:,} images, {captions:,} captions."
    if not found.findings:
        return ["No problems that would spoil training or inflate a score.", counted]
    return [found.findings[0].message, counted]


def _splits(found: Inspection) -> list[dict[str, Any]]:
    captions = found.captions
    first = [name for name in ("train", "val", "test") if name in captions.images]
    rows = []
    for name in [*first, *sorted(captions.images.keys() - set(first))]:
        known, of = captions.known.get(name, (0, 0))
        row: dict[str, Any] = {"name": name or "none", "images": captions.images[name]}
        row |= {"captions": captions.captions[name], "known": known / of if of else None}
        rows.append(row | {"unknown_words": captions.unknown_words.get(name)})
    return rows


def _counts(found: Inspection) -> list[tuple[str, str]]:
    """(number, of what)."""
    captions, lengths, words = found.captions, found.captions.length_statistics(), found.captions.vocabulary()
    images = sum(captions.images.values())
    rows = [(f"{images:,}", "images"), (f"{captions.total:,}", "captions")]
    rows.append((f"{captions.total / images:.1f}", "captions per image"))
    if lengths:
        rows += [
            (f"{lengths['mean']:.1f}", "words per caption"),
            (f"{lengths['min']}–{lengths['max']}", "shortest and longest, in words"),
            (f"{words['words']:,}", "different words"),
            (f"{words['used_once']:,}", "of them used once"),
            (f"{captions.distinct:,}", "different captions"),
        ]
    return rows


def _fields(found: Inspection) -> list[tuple[str, FieldFacts, float]]:
    """Name, facts and share of the images that have it; all fields together last."""
    if found.contexts is None:
        return []
    rows = [(name, facts, facts.images / found.contexts.captioned) for name, facts in found.contexts.fields.items()]
    if len(rows) > 1:
        rows.append(("all together", found.contexts.whole, found.contexts.images / found.contexts.captioned))
    return rows


def _card(sample: Sample) -> dict[str, Any]:
    picture, why = _picture(sample.image, 320)
    return {
        "id": sample.id, "split": sample.split, "captions": sample.captions, "context": sample.context,
        "picture": picture, "why_none": why,
    }  # fmt: skip


def _pair(pair: Pair) -> dict[str, Any]:
    return {"pair": pair, "pictures": [_picture(path, 200) for path in pair.images]}


def _thumbnails(paths: Iterable[str]) -> Sequence[Thumbnail]:
    return [picture for picture, _ in (_picture(path, 96) for path in paths) if picture is not None]


def _picture(path: str, side_px: int) -> tuple[Thumbnail | None, str]:
    """A small picture, or why there is none."""
    try:
        return thumbnail(path, side_px), ""
    except ImageProblem as problem:
        return None, f"{problem.reason.replace('_', ' ')}: {problem.detail}"
