"""The context that stands in the prompt doesn't hold the caption."""

from __future__ import annotations

import re

from cutline.check.subject import Subject
from cutline.check.verdict import Finding, failed, not_applicable, passed

STAGE = "data"
TITLE = "no context gives the caption away"
WHY = "A model that finds the caption in its prompt learns to copy, and its score means nothing."
AFTER: tuple[str, ...] = ()

#: Share of the images whose context may hold a caption by chance; captions of fewer words don't count.
SHARE, FEWEST_WORDS = 0.01, 3


def probe(subject: Subject) -> Finding:
    if subject.dataset is None or "{context}" not in subject.family.prompt:
        return not_applicable("the prompt has no context")
    found: dict[str, list[str]] = {}
    images = 0
    for sample in subject.dataset:
        if not sample.context or not sample.captions:
            continue
        images += 1
        captions = [words for words in map(_plain, sample.captions) if len(words.split()) >= FEWEST_WORDS]
        for field, text in sample.context.items():
            if any(f" {caption} " in f" {_plain(text)} " for caption in captions):
                found.setdefault(field, []).append(sample.id)
    if not images:
        return not_applicable("no image has a context")
    for field, names in found.items():
        if len(names) > SHARE * images:
            return failed(
                f"the context's {field!r} holds the caption of {len(names):,} of {images:,} images, {names[0]} for one",
                "Leave that field out of [data.columns] context, or take the caption out of its text.",
            )
    return passed(
        f"{images:,} images with context, and none gives its caption away"
        if not found
        else f"{sum(map(len, found.values())):,} of {images:,} contexts hold their caption, as may happen by chance"
    )


def _plain(text: str) -> str:
    """Words in lower case, with one space between them."""
    return " ".join(re.findall(r"\w+", text.lower()))
