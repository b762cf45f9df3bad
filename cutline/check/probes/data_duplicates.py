"""No image is in two splits. Files with the same bytes are the same image, whatever their names."""

from __future__ import annotations

from collections import defaultdict

from cutline.check.result import ProbeResult, failed, not_applicable, passed
from cutline.check.subject import ProbeSubject

STAGE = "data"
TITLE = "no image is in two splits"
WHY = "A model may remember a test image that it was trained on, so its score is too high."
AFTER = ("data_groups",)


def probe(subject: ProbeSubject) -> ProbeResult:
    data = subject.dataset
    if data is None:
        return not_applicable("there is no dataset")
    if len(data.splits()) < 2:
        return not_applicable("the dataset has only one split")
    splits: dict[str, set[str]] = defaultdict(set)  # of each image, by the hash of its bytes
    ids: dict[str, list[str]] = defaultdict(list)
    for digest, split, name in zip(data.column("sha256"), data.column("split"), data.column("id"), strict=True):
        splits[digest].add(split)
        ids[digest].append(name)
    shared = [digest for digest, of_image in splits.items() if len(of_image) > 1]
    if shared:
        return failed(
            f"{len(shared):,} images are in several splits, for example {' = '.join(ids[shared[0]][:2])}",
            "Let [data] val and test make the splits (they keep equal images together), or fix the source's splits.",
        )
    return passed(f"{len(splits):,} different images, each in one split")
