"""Divides samples so that each split has the same mix of something: sections of a newspaper, cities, photographers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from cutline.core.config import Section
from cutline.core.errors import DataError
from cutline.core.records import Sample
from cutline.data.splits import fill_empty, rank
from cutline.data.step import Step, Workspace

DESCRIPTION = "samples → splits by group and seed, each with the same mix of a column's values"
PHASE: Literal["end"] = "end"
ORDER = 10
REASONS: dict[str, str] = {}

#: What becomes known of a sample when its image is brought.
_OF_IMAGES = ("original_width", "original_height", "photo_notes")


class SplitSettings(Section):
    """[data.steps.split]; the shares and the seed are [data] val, test and seed."""

    stratify: str = Field(
        description="column or context field (section, location …) whose values each split gets in the same shares"
    )


SETTINGS = SplitSettings


def open(settings: SplitSettings, workspace: Workspace) -> Step:
    """Samples can't be divided one by one: preparing calls ``stratified`` when all are there."""

    def step(sample: Sample) -> Sample:
        return sample

    return step


def refuse(settings: SplitSettings, split_by: str, samples: Iterable[Sample], made: Collection[str]) -> None:
    """
    Args:
        split_by: "source" or "seed": who divides them.
        samples: as the source has them.
        made: fields that preparing makes.

    Raises:
        DataError: they can't be divided so; this is known before any image is brought.
    """
    if split_by != "seed":
        raise DataError(
            "[data.steps.split] would divide what the source has divided already.",
            'Leave it out, or give the samples back: rename_splits = {train = ""} and so on.',
        )
    column = settings.stratify
    if column not in (*made, *_OF_IMAGES) and not any(stratum(column, one.context, one.extra) for one in samples):
        raise DataError(f"No sample has a {column!r} to divide by.", "Fix stratify in [data.steps.split].")


def stratum(column: str, context: Mapping[str, Any], extra: Mapping[str, Any]) -> str:
    """A sample's value of the column; "" when it has none."""
    sources = extra.get("context_sources") or {}
    found = context.get(column) or extra.get(column) or (sources.get(column) or {}).get("value") or ""
    return str(found)


def stratified(groups: Sequence[str], strata: Sequence[str], val: float, test: float, seed: int) -> dict[str, str]:
    """Gives every group a split, so that each value of the stratum is divided in the same shares.

    The groups stand in an order by stratum, and within it by seed and name; each goes to the split that then lacks
    most. So every stratum comes within about one group of its shares, and so does the whole.

    Args:
        groups, strata: of each sample; a group's stratum is that of most of its samples.
        val, test: shares of the samples, 0–1.

    Returns:
        group → "train", "val" or "test".
    """
    sizes = Counter(groups)
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for group, value in zip(groups, strata, strict=True):
        found[group][value] += 1
    value_of = {group: min(counts.items(), key=lambda item: (-item[1], item[0]))[0] for group, counts in found.items()}
    shares = {"train": 1 - val - test, "val": val, "test": test}
    filled = dict.fromkeys(shares, 0)
    seen = 0
    chosen = {}
    for group in sorted(sizes, key=lambda group: (value_of[group], rank(seed, group))):
        seen += sizes[group]
        split = max(shares, key=lambda name: shares[name] * seen - filled[name])
        filled[split] += sizes[group]
        chosen[group] = split
    held = {group: split for group, split in chosen.items() if split != "train"}
    fill_empty(list(chosen), sizes, {"val": val * len(groups), "test": test * len(groups)}, held)
    return chosen | held
