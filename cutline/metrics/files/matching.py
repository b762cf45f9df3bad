"""Which image of the references a prediction means: by its whole name, or a shortened one while that is unique."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from cutline.core.errors import ScoreError


def shortenings(name: str) -> tuple[str, ...]:
    """The name whole, without its folder, without its ending, and as a number ("" where it is none)."""
    path = PurePosixPath(name.strip().replace("\\", "/"))
    file = path.name or name
    stem = path.stem if re.fullmatch(r"\.[A-Za-z]\w{1,4}", path.suffix) else file
    number = re.fullmatch(r"0*(\d+?)(\.0+)?", stem)
    return name, file, stem, number[1] if number else ""


def match(predicted: Iterable[str], images: Sequence[Sequence[str]], where: str) -> dict[str, int]:
    """Prediction's name → index of the image that it means; those that mean none are left out.

    Args:
        images: the names of each image.
        where: the file of references, for messages.

    Raises:
        ScoreError: a name means several images, or an image is meant by several names.
    """
    levels = len(shortenings(""))
    index: list[dict[str, dict[int, None]]] = [{} for _ in range(levels)]
    for number, names in enumerate(images):
        for name in names:
            for level, key in enumerate(shortenings(name)):
                for above in range(level, levels):  # a prediction without its ending meets a name that has none
                    if key:
                        index[above].setdefault(key, {})[number] = None
    found: dict[str, int] = {}
    taken: dict[int, str] = {}
    for name in predicted:
        for level, key in enumerate(shortenings(name)):
            hits = list(index[level].get(key, ())) if key else []
            if len(hits) > 1:
                a, b = (longest(images[hit]) for hit in hits[:2])
                raise ScoreError(
                    f"The prediction {name} could be for {a} or for {b} of {where}.",
                    "Name images in the predictions with their folders and endings, or choose a split with --split.",
                )
            if hits:
                other = taken.setdefault(hits[0], name)
                if other != name:
                    raise ScoreError(
                        f"The predictions {other} and {name} are both for {longest(images[hits[0]])} of {where}.",
                        "Keep one of them, or give both files the images' whole names.",
                    )
                found[name] = hits[0]
                break
    return found


def longest(names: Sequence[str]) -> str:
    """The name that says most, for messages."""
    return max(names, key=len)
