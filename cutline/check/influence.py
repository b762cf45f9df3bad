"""Which predictions one word of a caption influences: the experiment behind the leak and alignment probes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from cutline.check.subject import ProbeSubject

#: The most replacement words tried at one position, and the most positions tried in one caption.
MAX_WORDS, MAX_POSITIONS = 40, 6


@dataclass(frozen=True)
class CaptionPair:
    """Two captions with the same number of labels that differ in one word.

    Attributes:
        first, second: the captions.
        position: the first label that differs.
        length: number of labels in each.
    """

    first: str
    second: str
    position: int
    length: int

    @property
    def margin(self) -> int:
        """The number of labels before the change or after it, whichever is smaller. The end token counts as one."""
        return min(self.position, self.length - 1 - self.position)


@dataclass(frozen=True)
class Influence:
    """Which predictions change with the label at ``pair.position``.

    Attributes:
        pair: the captions compared.
        changed: position of each scored label → whether its prediction changed.
    """

    pair: CaptionPair
    changed: dict[int, bool]

    @property
    def first_changed(self) -> int | None:
        """The position of the first prediction that changed."""
        return next((position for position, changed in self.changed.items() if changed), None)


def caption_pair(subject: ProbeSubject) -> CaptionPair | None:
    """A pair of captions to compare. The word that differs is as far from both ends as possible."""
    if "caption_pair" not in subject.cache:
        subject.cache["caption_pair"] = _caption_pair(subject)
    pair: CaptionPair | None = subject.cache["caption_pair"]
    return pair


def _caption_pair(subject: ProbeSubject) -> CaptionPair | None:
    best: CaptionPair | None = None
    for caption, variants in _variants(subject):
        labels, *others = subject.labels_of([caption, *variants])
        for variant, other in zip(variants, others, strict=True):
            if len(other) != len(labels) or other == labels:
                continue
            position = next(index for index in range(len(labels)) if labels[index] != other[index])
            pair = CaptionPair(caption, variant, position, len(labels))
            if best is None or pair.margin > best.margin:
                best = pair
        if best and best.margin >= 3:
            break
    return best if best and best.margin >= 1 else None


def _variants(subject: ProbeSubject) -> Iterator[tuple[str, list[str]]]:
    """A caption, and copies of it with another word at one position."""
    vocabulary = list(dict.fromkeys(word for sample in subject.samples for word in sample.captions[0].split()))
    for sample in sorted(subject.samples, key=lambda sample: -len(sample.captions[0].split())):
        words = sample.captions[0].split()
        middle_first = sorted(range(len(words)), key=lambda position: abs(2 * position - len(words)))
        for position in middle_first[:MAX_POSITIONS]:
            variants = [
                " ".join([*words[:position], word, *words[position + 1 :]])
                for word in vocabulary[:MAX_WORDS]
                if word != words[position]
            ]
            if variants:
                yield " ".join(words), variants


def influence(subject: ProbeSubject) -> Influence | None:
    """Compares the model's predictions for the two captions of a pair; None if they can't be compared."""
    if "influence" not in subject.cache:
        subject.cache["influence"] = _influence(subject)
    result: Influence | None = subject.cache["influence"]
    return result


def _influence(subject: ProbeSubject) -> Influence | None:
    pair = caption_pair(subject)
    if pair is None:
        return None
    sample, image = subject.samples[0], subject.images[0]
    first, second = (
        subject.score([replace(sample, captions=(text,))], [image]).captions for text in (pair.first, pair.second)
    )
    if first is None or second is None:
        return None
    scale = float(first[0].logits.abs().max())
    differences = (first[0].logits - second[0].logits).abs().amax(1) / max(scale, 1e-12)
    offset = first[0].first_scored
    changed = {offset + row: float(share) > subject.sensitivity for row, share in enumerate(differences)}
    return Influence(pair, changed)
