"""Which images the report shows, and everything that is said under each."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from cutline.core.records import Prediction
from cutline.report.gather import Gathered
from cutline.report.thumbnails import Thumbnail, frame
from cutline.report.words import count, label, number

SIDE_PX = 320
BEST = WORST = 6
#: Steps of the training at which the panel's captions are shown.
MOST_STEPS = 6
DRAWN = 9
#: References shown under a photograph, and images named in the list of failures.
MOST_REFERENCES = 8
MOST_FAILED = 500

#: Scores that are printed beside the main one, where they were computed.
_BESIDE = ("bleu4", "rouge_l")

#: Longest text shown of one caption, in characters; a model that loops can fill a page.
_LONGEST = 600


@dataclass(frozen=True, kw_only=True)
class Card:
    """One photograph with what the model and people say about it.

    Attributes:
        why_none: why there is no picture.
        scores: (label, value as printed), the main one first.
        flags: what is wrong with the caption, a few words each.
    """

    id: str
    picture: Thumbnail | None
    why_none: str
    caption: str
    references: tuple[str, ...]
    more_references: int
    scores: tuple[tuple[str, str], ...]
    flags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Cards under one heading."""

    title: str
    note: str
    cards: tuple[Card, ...]


@dataclass(frozen=True, kw_only=True)
class Failure:
    id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Evolution:
    """One image of the training's panel, and what the model said of it as it learnt: (step, caption)."""

    id: str
    picture: Thumbnail | None
    said: tuple[tuple[int, str], ...]


def panel(run: Gathered) -> list[Evolution]:
    """What the model said of a few images, at steps spread over the training; none when no panel was kept."""
    rows = run.panel
    if len(rows) > MOST_STEPS:
        rows = tuple(rows[place * (len(rows) - 1) // (MOST_STEPS - 1)] for place in range(MOST_STEPS))
    names = list(rows[0]["captions"]) if rows else []
    return [
        Evolution(
            id=name,
            picture=run.photographs.picture(name, SIDE_PX)[0],
            said=tuple((row["step"], _clip(row["captions"].get(name, ""))) for row in rows),
        )
        for name in names
    ]


def failures(run: Gathered) -> list[Failure]:
    """Images without a caption, and why: failed ones first, then those that no prediction names."""
    found = [
        Failure(id=made.id, reason=made.error or "no reason was given")
        for made in run.predictions.values()
        if made.status == "failed"
    ]
    wanted = run.evaluation.ids if run.evaluation else ()
    if run.predictions:
        found += [Failure(id=name, reason="no prediction") for name in wanted if name not in run.predictions]
    return found


def galleries(run: Gathered, main: str | None) -> list[Gallery]:
    """A fair draw, the best and the worst; all images when there are few; none when there are no captions."""
    captioned = [name for name in _captions(run) if not _failed(run.predictions.get(name))]
    order = random.Random(0).sample(captioned, len(captioned))
    values = _values(run, main)
    ranked = sorted((name for name in order if name in values), key=lambda name: -values[name])  # ties as drawn
    if not order:
        return []
    if not ranked or main is None:
        note = f"{count(min(DRAWN, len(order)), 'image')} drawn by a fixed seed; they are not scored."
        return [_gallery(run, main, "Drawn at random", note, order[:DRAWN])]
    if len(order) <= BEST + WORST:
        unscored = [name for name in order if name not in values]
        return [_gallery(run, main, "Every image", f"Ordered by {label(main)}, best first.", ranked + unscored)]
    return [
        _gallery(run, main, "Drawn at random", "By a fixed seed: what to expect of an image.", order[:DRAWN]),
        _gallery(run, main, "Best", f"The highest {label(main)}.", ranked[:BEST]),
        _gallery(run, main, "Worst", f"The lowest {label(main)}.", ranked[: -WORST - 1 : -1]),
    ]


def aspect(galleries: Sequence[Gallery]) -> float:
    """Width / height of the box that every photograph stands in."""
    return frame([card.picture for gallery in galleries for card in gallery.cards if card.picture])


def _captions(run: Gathered) -> list[str]:
    return list(run.evaluation.ids) if run.evaluation and run.evaluation.ids else list(run.predictions)


def _failed(made: Prediction | None) -> bool:
    return made is not None and made.status == "failed"


def _values(run: Gathered, main: str | None) -> dict[str, float]:
    score = run.evaluation.scores.get(main) if run.evaluation and main else None
    if score is None or run.evaluation is None:
        return {}
    pairs = zip(run.evaluation.ids, score.per_image, strict=False)
    return {name: value for name, value in pairs if not math.isnan(value)}


def _gallery(run: Gathered, main: str | None, title: str, note: str, names: Sequence[str]) -> Gallery:
    return Gallery(title=title, note=note, cards=tuple(_card(run, main, name) for name in names))


def _card(run: Gathered, main: str | None, name: str) -> Card:
    picture, why_none = run.photographs.picture(name, SIDE_PX)
    made = run.predictions.get(name)
    caption, references = made.caption or "" if made else "", run.photographs.references(name)
    values: dict[str, float] = {}
    flags: list[str] = []
    if run.evaluation and name in run.places:
        place = run.places[name]
        caption, references = run.evaluation.captions[place], run.evaluation.references[place]
        known = run.evaluation.scores
        shown = [main or "", *(other for other in _BESIDE if other != main)]
        values = {metric: known[metric].per_image[place] for metric in shown if metric in known}
        if "repeated" in known and known["repeated"].per_image[place]:
            flags.append("repeats itself")
    if made and made.caption and made.tokens and not made.finished:
        flags.append("cut at the length limit")
    return Card(
        id=name, picture=picture, why_none=why_none, caption=_clip(caption),
        references=tuple(_clip(text) for text in references[:MOST_REFERENCES]),
        more_references=max(0, len(references) - MOST_REFERENCES),
        scores=tuple((label(metric), number(metric, value)) for metric, value in values.items()),
        flags=tuple(flags),
    )  # fmt: skip


def _clip(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + f"… ({len(text):,} characters)"
