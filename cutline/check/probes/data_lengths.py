"""The captions that people wrote can be said within the length limit."""

from __future__ import annotations

from cutline.check.subject import Subject
from cutline.check.verdict import Finding, failed, not_applicable, passed

STAGE = "data"
TITLE = "captions fit the length limit"
WHY = "A limit below what people wrote cuts captions in the middle, and every score with them."
AFTER: tuple[str, ...] = ()

#: Captions that are measured, and the share of them that may be longer.
MOST, SHARE = 5000, 0.01


def probe(subject: Subject) -> Finding:
    if subject.dataset is None:
        return not_applicable("there is no dataset")
    if subject.tiny:
        return not_applicable("the miniature's tokens are not the checkpoint's")
    captions = [caption for captions in subject.dataset.column("captions") for caption in captions]
    captions = captions[:: max(1, len(captions) // MOST)]
    tokenized = subject.family.tokenizer(captions, add_special_tokens=False)["input_ids"]
    lengths = sorted(len(tokens) + 1 for tokens in tokenized)  # with the end token
    limits = {"[generate] max_new_tokens": subject.generate.max_new_tokens}
    if subject.train is not None:
        limits["[train] val_max_new_tokens"] = subject.train.val_max_new_tokens
    said = f"the longest of {len(captions):,} captions has {lengths[-1]} tokens"
    for key, limit in limits.items():
        over = sum(length > limit for length in lengths)
        if over > SHARE * len(lengths):
            enough = lengths[min(len(lengths) - 1, int((1 - SHARE) * len(lengths)))]
            return failed(
                f"{over:,} of {len(lengths):,} captions are longer than {key} = {limit}; {said}",
                f"Set {key} = {enough} or more.",
            )
    return passed(f"{said}; the limits are {' and '.join(str(limit) for limit in limits.values())}")
