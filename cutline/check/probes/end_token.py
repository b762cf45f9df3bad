"""The last label of every caption must be a token that ends it when captions are generated."""

from __future__ import annotations

from cutline.check.subject import Subject
from cutline.check.verdict import Finding, failed, not_judged, passed

STAGE = "labels"
TITLE = "the end token is a label"
WHY = "A model that is never taught to stop goes on until the length limit cuts it."
AFTER: tuple[str, ...] = ()


def probe(subject: Subject) -> Finding:
    tokenizer = subject.family.tokenizer
    ends = sorted(subject.ends)
    if not ends:
        return failed("no token ends a caption", "Give generation_config.eos_token_id in the checkpoint.")
    names = ", ".join(repr(tokenizer.convert_ids_to_tokens(end)) for end in ends)
    bad = [row for row in subject.labels if not row or row[-1] not in ends]
    if bad:
        last = repr(tokenizer.convert_ids_to_tokens(bad[0][-1])) if bad[0] else "nothing"
        same = tokenizer.pad_token_id in ends
        return failed(
            f"{len(bad)} of {len(subject.labels)} captions end with {last} as their last label, not with {names}",
            "Padding and end are the same token here: mask padding by its length, never by its id."
            if same
            else "The family's encode must put the end token behind every caption, as a label.",
        )
    for (sample, picture), row in zip(subject.pairs, subject.labels, strict=True):
        said = subject.force([sample], [picture], [row])
        if said is None:
            return not_judged("generation of this family can't be made to say a given caption")
        if not said[0].generation.finished:
            return failed(
                f"generation goes on after the end token that was trained, {row[-1]}",
                "Put the trained end token into generation_config.eos_token_id.",
            )
    return passed(f"every caption's last label is one of {names}, and it stops generation")
