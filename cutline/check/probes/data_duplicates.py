"""No picture lies in two splits: the same bytes under another name are the same picture."""

from __future__ import annotations

from collections import defaultdict

from cutline.check.subject import Subject
from cutline.check.verdict import Finding, failed, not_applicable, passed

STAGE = "data"
TITLE = "the splits share no picture"
WHY = "A test picture that was trained on is remembered, not described."
AFTER = ("data_groups",)


def probe(subject: Subject) -> Finding:
    data = subject.dataset
    if data is None or len(data.splits()) < 2:
        return not_applicable("there is only one split")
    places: dict[str, set[str]] = defaultdict(set)
    names: dict[str, list[str]] = defaultdict(list)
    for digest, split, name in zip(data.column("sha256"), data.column("split"), data.column("id"), strict=True):
        places[digest].add(split)
        names[digest].append(name)
    shared = [digest for digest, splits in places.items() if len(splits) > 1]
    if shared:
        return failed(
            f"{len(shared):,} pictures lie in several splits, {' = '.join(names[shared[0]][:2])} for one",
            "Leave the splits to [data] val and test, which keep equal pictures together, or mend the source's.",
        )
    return passed(f"{len(places):,} pictures by their bytes, each in one split")
