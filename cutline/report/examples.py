"""Which images the report shows, and the text under each."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from cutline.core.records import Prediction
from cutline.report.gather import Gathered
from cutline.report.thumbnails import Thumbnail, frame
from cutline.report.words import count, number

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
    """One photograph with its caption and references.

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
    """One image of the training's panel with its captions during training: (step, caption)."""

    id: str
    picture: Thumbnail | None
    captions: tuple[tuple[int, str], ...]


def panel(run: Gathered) -> list[Evolution]:
    """Captions of a few images at steps spread over the training; none when no panel was kept."""
    rows = run.panel
    if len(rows) > MOST_STEPS:
        rows = tuple(rows[number * (len(rows) - 1) // (MOST_STEPS - 1)] for number in range(MOST_STEPS))
    names = list(rows[0]["captions"]) if rows else []
    return [
        Evolution(
            id=name,
            picture=run.photographs.picture(name, SIDE_PX)[0],
            captions=tuple((row["step"], _clip(row["captions"].get(name, ""))) for row in rows),
        )
        for name in names
    ]


def failures(run: Gathered) -> list[Failure]:
    """Images without a caption, and why: failed ones first, then those that no prediction names."""
    found = [
        Failure(id=prediction.id, reason=prediction.error or "no reason was given")
        for prediction in run.predictions.values()
        if prediction.status == "failed"
    ]
    wanted = run.evaluation.ids if run.evaluation else ()
    if run.predictions:
        found += [Failure(id=name, reason="no prediction") for name in wanted if name not in run.predictions]
    return found


def galleries(run: Gathered, main: str | None) -> list[Gallery]:
    """Images drawn at random, the best and the worst; all images when there are few."""
    captioned = [name for name in _captions(run) if not _failed(run.predictions.get(name))]
    order = random.Random(0).sample(captioned, len(captioned))
    if not order:
        return []
    values = _values(run, main)
    if not values or main is None or run.evaluation is None:
        note = f"{count(min(DRAWN, len(order)), 'image')} drawn by a fixed seed; they are not scored."
        return [_gallery(run, main, "Drawn at random", note, order[:DRAWN])]
    info = run.evaluation.scores[main].info
    sign = -1 if info.lower_is_better else 1
    ranked = sorted((name for name in order if name in values), key=lambda name: -sign * values[name])  # ties as drawn
    if len(order) <= BEST + WORST:
        unscored = [name for name in order if name not in values]
        return [_gallery(run, main, "Every image", f"Ordered by {info.label}, best first.", ranked + unscored)]
    return [
        _gallery(run, main, "Drawn at random", "By a fixed seed: what to expect of an image.", order[:DRAWN]),
        _gallery(run, main, "Best", f"The best {info.label}.", ranked[:BEST]),
        _gallery(run, main, "Worst", f"The worst {info.label}.", ranked[: -WORST - 1 : -1]),
    ]


def aspect(galleries: Sequence[Gallery]) -> float:
    """Width / height of the frame around every photograph."""
    return frame([card.picture for gallery in galleries for card in gallery.cards if card.picture])


def _captions(run: Gathered) -> list[str]:
    return list(run.evaluation.ids) if run.evaluation and run.evaluation.ids else list(run.predictions)


def _failed(prediction: Prediction | None) -> bool:
    return prediction is not None and prediction.status == "failed"


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
    prediction = run.predictions.get(name)
    caption, references = (prediction.caption or "") if prediction else "", run.photographs.references(name)
    values: list[tuple[str, str]] = []
    flags: list[str] = []
    if run.evaluation and name in run.rows:
        row = run.rows[name]
        caption, references = run.evaluation.captions[row], run.evaluation.references[row]
        scores = run.evaluation.scores
        for metric in dict.fromkeys((main or "", *_BESIDE)):
            if metric in scores:
                info = scores[metric].info
                values.append((info.label, number(info, scores[metric].per_image[row])))
        if "repeated" in scores and scores["repeated"].per_image[row]:
            flags.append("repeats itself")
    if prediction and prediction.caption and prediction.tokens and not prediction.finished:
        flags.append("cut off at the length limit")
    return Card(
        id=name, picture=picture, why_none=why_none, caption=_clip(caption),
        references=tuple(_clip(text) for text in references[:MOST_REFERENCES]),
        more_references=max(0, len(references) - MOST_REFERENCES),
        scores=tuple(values),
        flags=tuple(flags),
    )  # fmt: skip


def _clip(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + f"… ({len(text):,} characters)"
