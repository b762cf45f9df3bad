"""What a round of bootstrapping kept and dropped, as a page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cutline.images.open import ImageProblem
from cutline.report import dataset_plots, html
from cutline.report.thumbnails import thumbnail

#: Images of each section, and images without a score that are named.
_SHOWN, _NAMED = 12, 30

#: Log-odds beyond this are drawn as this.
_MOST = 10


def write(
    path: Path,
    name: str,
    rule: str,
    counts: Mapping[str, Mapping[str, int]],
    captions: Mapping[str, Sequence[Mapping[str, Any]]],
    images: Mapping[str, str],
    failed: Mapping[str, str],
    deck: Sequence[str],
) -> Path:
    """Writes the page; returns its path.

    Args:
        rule: how the filter decided, in words.
        counts: kind → "captions" and "kept".
        captions: image → its captions, each with text, kind, log_odds and kept.
        images: image → its file.
        failed: image → why it has no score.
        deck: the sentences under the title.
    """
    page = html.render(
        "bootstrap.html.jinja",
        "page.css",
        "bootstrap.css",
        name=name,
        rule=rule,
        deck=deck,
        counts=counts,
        plots=[(kind, Markup(_plot(captions, kind))) for kind in counts],
        most=_MOST,
        failed=list(failed.items())[:_NAMED],
        shown=[(title, note, [_card(id, captions[id], images[id]) for id in ids])
               for title, note, ids in _sections(captions) if ids],
    )  # fmt: skip
    return html.write(path, page)


def _plot(captions: Mapping[str, Sequence[Mapping[str, Any]]], kind: str) -> str:
    values = (one["log_odds"] for of in captions.values() for one in of if one["kind"] == kind)
    counted = Counter(math.floor(min(max(value, -_MOST), _MOST)) for value in values)
    return dataset_plots.histogram(counted, f"odds-{kind}", "log-odds to match")


def _sections(captions: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterable[tuple[str, str, list[str]]]:
    """Title, note and images of each section; an image is shown once."""
    left = {id: of for id, of in captions.items() if of}
    worst = {id: min(one["log_odds"] for one in of) for id, of in left.items()}
    first = [id for id in sorted(left, key=worst.__getitem__) if any(not one["kept"] for one in left[id])][:_SHOWN]
    yield "Dropped most clearly", "images with the lowest-scoring captions", first
    rest = [id for id in left if id not in set(first)]
    # the border lies between the worst that stays and the best that goes, wherever the rule puts it
    border = {id: min((abs(one["log_odds"] - _border(captions)) for one in left[id]), default=0.0) for id in rest}
    near = sorted(rest, key=border.__getitem__)[:_SHOWN]
    yield "Close to the threshold", "images with a caption that was nearly decided the other way", near
    rest = [id for id in rest if id not in set(near)]
    yield (
        "Others",
        "sampled evenly from the rest",
        [rest[n * len(rest) // _SHOWN] for n in range(min(_SHOWN, len(rest)))],
    )


def _border(captions: Mapping[str, Sequence[Mapping[str, Any]]]) -> float:
    every = [one for of in captions.values() for one in of]
    kept = [float(one["log_odds"]) for one in every if one["kept"]]
    dropped = [float(one["log_odds"]) for one in every if not one["kept"]]
    return (min(kept) + max(dropped)) / 2 if kept and dropped else min(kept or dropped)


def _card(id: str, captions: Sequence[Mapping[str, Any]], image: str) -> dict[str, Any]:
    picture, why = None, ""
    try:
        picture = thumbnail(image, 320)
    except ImageProblem as problem:
        why = f"{problem.reason.replace('_', ' ')}: {problem.detail}"
    rows = [
        {**one, "probability": f"{100 / (1 + math.exp(-one['log_odds'])):.1f} %"}
        for one in sorted(captions, key=lambda one: -one["log_odds"])
    ]
    return {"id": id, "captions": rows, "picture": picture, "why_none": why}
