"""Images that come more than once, byte for byte, under different ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from cutline.core.records import Sample
from cutline.data.problem import Problem
from cutline.data.splits import joined
from cutline.images.open import ImageFacts


class DuplicateImages:
    """Remembers each picture's first sample, and the pairs of samples that share one."""

    def __init__(self) -> None:
        self._first: dict[int, tuple[str, str, str]] = {}  # picture → id, group, split
        self._pairs: list[tuple[tuple[str, str, str], tuple[str, str, str]]] = []

    def add(self, sample: Sample, facts: ImageFacts) -> None:
        this = (sample.id, sample.group, sample.split)
        first = self._first.setdefault(_key(facts.sha256), this)
        if first is not this:
            self._pairs.append((first, this))

    def join(self, pairs: Iterable[tuple[tuple[str, str, str], tuple[str, str, str]]]) -> None:
        """Keeps further pairs of samples together: (id, group, split) each, the earlier one first."""
        self._pairs.extend(pairs)

    def __contains__(self, sha256: object) -> bool:
        return isinstance(sha256, str) and _key(sha256) in self._first

    def divided(self) -> Iterator[Problem]:
        """The pairs that lie in different splits: the same picture is learnt and tested."""
        for (first, _, there), (this, _, here) in self._pairs:
            if there != here:
                yield Problem(id=this, reason="divided_image", detail=f"in {here}; in {there} it is {first}")

    def moves(self, groups: Sequence[str], splits: Sequence[str]) -> dict[str, dict[str, str]]:
        """Joins groups that share a picture: group → its new group, and the split of the largest of them."""
        families = joined((first[1], this[1]) for first, this in self._pairs if first[1] != this[1])
        if not families:
            return {}
        sizes = Counter(groups)
        wanted = {group for members in families.values() for group in members}
        split_of = {group: split for group, split in zip(groups, splits, strict=True) if group in wanted}
        moved = {}
        for name, members in families.items():
            split = split_of[max(members, key=lambda group: sizes[group])]  # of equals, the first by name
            moved.update({group: {"group": name, "split": split} for group in members})
        return moved


def _key(sha256: str) -> int:
    return int(sha256[:16], 16)  # 64 bits are enough to tell a million images apart, in half the memory
