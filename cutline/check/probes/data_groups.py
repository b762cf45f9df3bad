"""No group (image, article, near-duplicates) lies in two splits."""

from __future__ import annotations

from cutline.check.subject import Subject
from cutline.check.verdict import Finding, failed, not_applicable, passed
from cutline.data.splits import divided

STAGE = "data"
TITLE = "the splits share no group"
WHY = "Images of one article, or captions of one image, in training and test alike make the score a memory test."
AFTER: tuple[str, ...] = ()


def probe(subject: Subject) -> Finding:
    data = subject.dataset
    if data is None or len(data.splits()) < 2:
        return not_applicable("there is only one split")
    groups = data.column("group")
    torn = divided(groups, data.column("split"))
    if torn:
        name, counts = next(iter(torn.items()))
        return failed(
            f"{len(torn):,} of {len(set(groups)):,} groups lie in several splits, {name} for one "
            f"({', '.join(f'{count} in {split}' for split, count in counts.items())})",
            "Leave the splits to [data] val and test, which never divide a group, or mend the source's.",
        )
    return passed(f"{len(set(groups)):,} groups, each in one split")
