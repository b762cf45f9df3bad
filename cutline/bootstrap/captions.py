"""Captions with their origin and score, and the filter that selects from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cutline.bootstrap.settings import KeepSettings
from cutline.core.records import Sample

#: "web": from the web dataset. "synthetic": written by the captioner.
Kind = Literal["web", "synthetic"]


@dataclass(frozen=True, slots=True)
class ScoredCaption:
    """A caption of a web image before the filter.

    Attributes:
        image: the sample's id.
        text: the caption.
        kind: origin of the caption.
        log_odds: log-odds that the caption matches, in nats; above 0 the matcher accepts it.
    """

    image: str
    text: str
    kind: Kind
    log_odds: float

    def to_json(self, kept: bool) -> dict[str, Any]:
        return {"image": self.image, "text": self.text, "kind": self.kind, "log_odds": self.log_odds, "kept": kept}


def of_image(sample: Sample, written: Sequence[str]) -> list[tuple[str, Kind]]:
    """The captions of one image, each text once; a text that is both web and synthetic counts as web."""
    kinds: dict[str, Kind] = {}
    for texts, kind in ((sample.captions, "web"), (written, "synthetic")):
        for text in texts:
            if text.strip():
                kinds.setdefault(text.strip(), kind)  # type: ignore[arg-type]
    return list(kinds.items())


def chosen(captions: Sequence[ScoredCaption], keep: KeepSettings) -> list[bool]:
    """Whether each caption is kept: by its probability, or the best share of each kind (of equal ones the earlier)."""
    if keep.share is None:
        bound = _log_odds(keep.threshold)
        return [one.log_odds >= bound for one in captions]
    kept = [False] * len(captions)
    for kind in ("web", "synthetic"):
        indices = [index for index, caption in enumerate(captions) if caption.kind == kind]
        indices.sort(key=lambda index: -captions[index].log_odds)  # stable
        for index in indices[: round(keep.share * len(indices))]:
            kept[index] = True
    return kept


def _log_odds(probability: float) -> float:
    from math import inf, log

    if probability in (0, 1):
        return -inf if probability == 0 else inf
    return log(probability / (1 - probability))


def counts(captions: Iterable[ScoredCaption], kept: Iterable[bool]) -> dict[str, dict[str, int]]:
    """Kind → number of captions, and of kept captions."""
    total: Counter[str] = Counter()
    kept_of: Counter[str] = Counter()
    for caption, keep in zip(captions, kept, strict=True):
        total[caption.kind] += 1
        kept_of[caption.kind] += keep
    return {kind: {"captions": total[kind], "kept": kept_of[kind]} for kind in ("web", "synthetic") if total[kind]}


def by_image(captions: Iterable[ScoredCaption], kept: Iterable[bool]) -> dict[str, list[tuple[ScoredCaption, bool]]]:
    """Image id → its captions, and whether each is kept, in order."""
    images: dict[str, list[tuple[ScoredCaption, bool]]] = {}
    for caption, keep in zip(captions, kept, strict=True):
        images.setdefault(caption.image, []).append((caption, keep))
    return images


def from_rows(rows: Iterable[Mapping[str, Any]]) -> Iterator[ScoredCaption]:
    """Scored captions from the lines of ``scores.jsonl``."""
    for row in rows:
        for text, kind, log_odds in row["captions"]:
            yield ScoredCaption(row["image"], text, kind, log_odds)
