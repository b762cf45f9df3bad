"""Dividing samples into train, val and test by group: reproducible, and never two halves of one group."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

_USUAL = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def known_name(name: str) -> str:
    """``train``, ``val`` or ``test`` for the usual ways to write them ("Validation", "dev"); "" for anything else."""
    return _USUAL.get(name.strip().lower(), "")


def canonical(name: str, renames: Mapping[str, str]) -> str:
    """The name that a source's split gets: as the recipe renames it, else the usual name, else its own."""
    name = name.strip()
    return renames[name] if name in renames else known_name(name) or name


def assign(groups: Sequence[str], val: float, test: float, seed: int) -> list[str]:
    """Gives every sample a split.

    The groups stand in an order that depends on the seed and their names alone; from its beginning they fill test, then
    val, as far as they fit, and the rest is train. So the order of the samples doesn't matter, and one more changes
    little. With three groups or more, no split that is asked for stays empty.

    Args:
        groups: the group of each sample.
        val, test: shares of the samples, 0–1; each is met within the size of one group.

    Returns:
        "train", "val" or "test" for each sample, in their order.
    """
    sizes = Counter(groups)
    order = sorted(sizes, key=lambda group: rank(seed, group))
    wanted = {"test": test * len(groups), "val": val * len(groups)}
    filled = {"test": 0, "val": 0}
    chosen: dict[str, str] = {}
    for group in order:
        for name in filled:
            if filled[name] + sizes[group] / 2 <= wanted[name]:  # putting it in comes nearer than leaving it out
                filled[name] += sizes[group]
                chosen[group] = name
                break
    fill_empty(order, sizes, wanted, chosen)
    return [chosen.get(group, "train") for group in groups]


def fill_empty(
    order: Sequence[str], sizes: Mapping[str, int], wanted: Mapping[str, float], chosen: dict[str, str]
) -> None:
    """Gives a split that is asked for but got nothing the smallest group of train, as long as train keeps one, or else
    groups of the other split, until both have the same part of what they want.

    Args:
        order: all groups; ``sizes``: samples of each.
        wanted: samples that "val" and "test" want.
        chosen: group → "val" or "test", for those that aren't train's; this is changed.
    """
    for name, other in (("val", "test"), ("test", "val")):
        if not wanted[name] or name in chosen.values():
            continue
        free = [group for group in order if group not in chosen]
        if len(free) > 1:
            chosen[min(free, key=lambda group: sizes[group])] = name
            continue
        theirs = sorted((group for group in order if chosen.get(group) == other), key=lambda group: sizes[group])
        here, there = 0, sum(sizes[group] for group in theirs)
        for group in theirs[:-1]:
            if here and (here + sizes[group]) * wanted[other] > (there - sizes[group]) * wanted[name]:
                break
            chosen[group] = name
            here, there = here + sizes[group], there - sizes[group]


def complete(groups: Sequence[str], given: Sequence[str]) -> list[str]:
    """Fills in the splits that a source leaves open: that of the group's other samples, or else train."""
    of_group: dict[str, str] = {}
    for group, split in zip(groups, given, strict=True):
        if split:
            of_group.setdefault(group, split)
    return [split or of_group.get(group, "train") for group, split in zip(groups, given, strict=True)]


def divided(groups: Sequence[str], splits: Sequence[str]) -> dict[str, dict[str, int]]:
    """Groups that lie in more than one split: group → number of samples by split."""
    first: dict[str, str] = {}
    torn = {group for group, split in zip(groups, splits, strict=True) if first.setdefault(group, split) != split}
    found: dict[str, Counter[str]] = defaultdict(Counter)
    if torn:
        for group, split in zip(groups, splits, strict=True):
            if group in torn:
                found[group][split] += 1
    return {group: dict(sorted(found[group].items())) for group in sorted(found)}


def joined(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Groups that belong together because some of their samples are the same: smallest name → all names, sorted."""
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        parent.setdefault(group, group)
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    for one, other in pairs:
        first, second = sorted((root(one), root(other)))
        parent[second] = first
    found: dict[str, list[str]] = defaultdict(list)
    for group in sorted(parent):
        found[root(group)].append(group)
    return {name: members for name, members in found.items() if len(members) > 1}


def draw(ids: Sequence[str], splits: Sequence[str], limit: int, seed: int) -> list[int]:
    """Indices of the samples that a limit keeps, ascending: at most ``limit`` of each split, whatever their order."""
    by_split: dict[str, list[int]] = defaultdict(list)
    for index, split in enumerate(splits):
        by_split[split].append(index)
    kept = (heapq.nsmallest(limit, indices, key=lambda index: rank(seed, ids[index])) for indices in by_split.values())
    return sorted(index for indices in kept for index in indices)


def rank(seed: int, name: str) -> bytes:
    """A sort key for a random-looking order that depends on the seed and the name alone."""
    return hashlib.blake2b(f"{seed}\0{name}".encode(errors="surrogatepass"), digest_size=16).digest()
