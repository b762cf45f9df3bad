"""Captions with where each came from, their scores, and what the filter lets through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cutline.bootstrap.settings import KeepSettings
from cutline.core.records import Sample

#: "web": found beside the image. "synthetic": written by the captioner.
Kind = Literal["web", "synthetic"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A caption of a web image before the filter.

    Attributes:
        image: the sample's id.
        text: the caption.
        kind: where it came from.
        log_odds: that it matches, in nats; above 0 the matcher takes it for a true pair.
    """

    image: str
    text: str
    kind: Kind
    log_odds: float

    def to_json(self, kept: bool) -> dict[str, Any]:
        return {"image": self.image, "text": self.text, "kind": self.kind, "log_odds": self.log_odds, "kept": kept}


def of_image(sample: Sample, written: Sequence[str]) -> list[tuple[str, Kind]]:
    """The captions of one image, each text once: one that people wrote as well counts as theirs."""
    found: dict[str, Kind] = {}
    for texts, kind in ((sample.captions, "web"), (written, "synthetic")):
        for text in texts:
            if text.strip():
                found.setdefault(text.strip(), kind)  # type: ignore[arg-type]
    return list(found.items())


def chosen(candidates: Sequence[Candidate], keep: KeepSettings) -> list[bool]:
    """Which captions stay.

    By probability, or the best of each kind; of equal ones at the border the earlier.
    """
    if keep.share is None:
        bound = _log_odds(keep.threshold)
        return [one.log_odds >= bound for one in candidates]
    stays = [False] * len(candidates)
    for kind in ("web", "synthetic"):
        places = [place for place, one in enumerate(candidates) if one.kind == kind]
        places.sort(key=lambda place: -candidates[place].log_odds)  # stable
        for place in places[: round(keep.share * len(places))]:
            stays[place] = True
    return stays


def _log_odds(probability: float) -> float:
    from math import inf, log

    if probability in (0, 1):
        return -inf if probability == 0 else inf
    return log(probability / (1 - probability))


def counts(candidates: Iterable[Candidate], stays: Iterable[bool]) -> dict[str, dict[str, int]]:
    """Kind → how many there were, and how many stay."""
    of: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    for one, stay in zip(candidates, stays, strict=True):
        of[one.kind] += 1
        kept[one.kind] += stay
    return {kind: {"captions": of[kind], "kept": kept[kind]} for kind in ("web", "synthetic") if of[kind]}


def by_image(candidates: Iterable[Candidate], stays: Iterable[bool]) -> dict[str, list[tuple[Candidate, bool]]]:
    """Candidates and whether they stay, by image, in order."""
    found: dict[str, list[tuple[Candidate, bool]]] = {}
    for one, stay in zip(candidates, stays, strict=True):
        found.setdefault(one.image, []).append((one, stay))
    return found


def from_rows(rows: Iterable[Mapping[str, Any]]) -> Iterator[Candidate]:
    """Candidates from the lines of ``scores.jsonl``."""
    for row in rows:
        for text, kind, log_odds in row["captions"]:
            yield Candidate(row["image"], text, kind, log_odds)
