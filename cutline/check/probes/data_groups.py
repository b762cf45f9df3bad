"""No group (image, article, near-duplicates) is in two splits."""

from __future__ import annotations

from cutline.check.result import ProbeResult, failed, not_applicable, passed
from cutline.check.subject import ProbeSubject
from cutline.data.splits import divided

STAGE = "data"
TITLE = "no group is in two splits"
WHY = "If images of one article, or captions of one image, are in training and test, the score measures memory."
AFTER: tuple[str, ...] = ()


def probe(subject: ProbeSubject) -> ProbeResult:
    data = subject.dataset
    if data is None:
        return not_applicable("there is no dataset")
    if len(data.splits()) < 2:
        return not_applicable("the dataset has only one split")
    groups = data.column("group")
    in_several = divided(groups, data.column("split"))
    if in_several:
        name, counts = next(iter(in_several.items()))
        by_split = ", ".join(f"{count} in {split}" for split, count in counts.items())
        return failed(
            f"{len(in_several):,} of {len(set(groups)):,} groups are in several splits, "
            f"for example {name} ({by_split})",
            "Let [data] val and test make the splits (they never divide a group), or fix the source's splits.",
        )
    return passed(f"{len(set(groups)):,} groups, each in one split")
