"""Reference captions fit the length limits of generation."""

from __future__ import annotations

from cutline.check.result import ProbeResult, failed, not_applicable, passed
from cutline.check.subject import ProbeSubject

STAGE = "data"
TITLE = "captions fit the length limits"
WHY = "A limit that is shorter than the reference captions truncates generated ones, which lowers every score."
AFTER: tuple[str, ...] = ()

#: The most captions that are tokenized, and the share of them that may exceed a limit.
MAX_CAPTIONS, MAX_SHARE = 5000, 0.01


def probe(subject: ProbeSubject) -> ProbeResult:
    if subject.dataset is None:
        return not_applicable("there is no dataset")
    if subject.tiny:
        return not_applicable("a miniature has a tokenizer of its own")
    captions = [caption for captions in subject.dataset.column("captions") for caption in captions]
    captions = captions[:: max(1, len(captions) // MAX_CAPTIONS)]
    tokenized = subject.family.tokenizer(captions, add_special_tokens=False)["input_ids"]
    lengths = sorted(len(tokens) + 1 for tokens in tokenized)  # 1 for the end token
    limits = {"[generate] max_new_tokens": subject.generate.max_new_tokens}
    if subject.train is not None:
        limits["[train] val_max_new_tokens"] = subject.train.val_max_new_tokens
    longest = f"the longest of {len(captions):,} captions has {lengths[-1]} tokens"
    for key, limit in limits.items():
        over = sum(length > limit for length in lengths)
        if over > MAX_SHARE * len(lengths):
            enough = lengths[min(len(lengths) - 1, int((1 - MAX_SHARE) * len(lengths)))]
            return failed(
                f"{over:,} of {len(lengths):,} captions are longer than {key} = {limit}; {longest}",
                f"Set {key} = {enough} or more.",
            )
    return passed(f"{longest}; the limits are {' and '.join(str(limit) for limit in limits.values())}")
