"""What one word of a caption has an influence on: the experiment behind the probes of leaks and of alignment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cutline.check.subject import Subject

#: Words that are tried in the place of another, and places tried in a caption.
WORDS, PLACES = 40, 6


@dataclass(frozen=True)
class Exchange:
    """Two captions with equally many labels that differ from one label on.

    Attributes:
        one, other: the captions.
        place: the first label that differs.
        labels: number of labels of each.
    """

    one: str
    other: str
    place: int
    labels: int


@dataclass(frozen=True)
class Influence:
    """What changes when the label at ``place`` is another.

    Attributes:
        changed: for each label that is scored, its place and whether the prediction of it changed.
    """

    exchange: Exchange
    changed: dict[int, bool]

    @property
    def place(self) -> int:
        return self.exchange.place

    @property
    def first(self) -> int | None:
        """The first label whose prediction changed."""
        return next((place for place, changed in self.changed.items() if changed), None)


def exchange(subject: Subject) -> Exchange | None:
    """A pair of captions to compare; the word that differs stands as far as can be from both ends."""
    if "exchange" not in subject.notes:
        subject.notes["exchange"] = _exchange(subject)
    found: Exchange | None = subject.notes["exchange"]
    return found


def _exchange(subject: Subject) -> Exchange | None:
    best: Exchange | None = None
    for one, others in _variants(subject):
        labels = subject.labels_of([one, *others])
        for other, row in zip(others, labels[1:], strict=True):
            different = [place for place, pair in enumerate(zip(labels[0], row, strict=False)) if pair[0] != pair[1]]
            if len(row) != len(labels[0]) or not different:
                continue
            found = Exchange(one, other, different[0], len(row))
            if best is None or _room(found) > _room(best):
                best = found
        if best and _room(best) >= 3:
            break
    return best if best and _room(best) >= 1 else None


def _room(found: Exchange) -> int:
    """Labels before the change and after it, whichever are fewer; the end token is one of them."""
    return min(found.place, found.labels - 1 - found.place)


def _variants(subject: Subject) -> Iterator[tuple[str, list[str]]]:
    """A caption, and the same with another word in one place."""
    words = list(dict.fromkeys(word for sample in subject.samples for word in sample.captions[0].split()))[:WORDS]
    for sample in sorted(subject.samples, key=lambda sample: -len(sample.captions[0].split())):
        said = sample.captions[0].split()
        middle_first = sorted(range(len(said)), key=lambda place: abs(2 * place - len(said)))
        for place in middle_first[:PLACES]:
            others = [_with(said, place, word) for word in words if word != said[place]]
            if others:
                yield " ".join(said), others


def _with(said: Sequence[str], place: int, word: str) -> str:
    return " ".join([*said[:place], word, *said[place + 1 :]])


def influence(subject: Subject) -> Influence | None:
    """Teaches the model both captions of an exchange and compares its predictions; None where it can't be seen."""
    if "influence" not in subject.notes:
        subject.notes["influence"] = _influence(subject)
    found: Influence | None = subject.notes["influence"]
    return found


def _influence(subject: Subject) -> Influence | None:
    pair = exchange(subject)
    if pair is None:
        return None
    sample, picture = subject.samples[0], subject.pictures[0]
    taught = [subject.teach([replace(sample, captions=(text,))], [picture]).rows for text in (pair.one, pair.other)]
    if taught[0] is None or taught[1] is None:
        return None
    one, other = taught[0][0], taught[1][0]
    scale = float(one.logits.abs().max())
    apart = (one.logits - other.logits).abs().amax(1) / max(scale, 1e-12)
    changed = {one.first + row: float(share) > subject.sensitivity for row, share in enumerate(apart)}
    return Influence(pair, changed)
