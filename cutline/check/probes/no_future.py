"""Future leak: a word is changed, and what was predicted before it must stay as it was."""

from __future__ import annotations

from cutline.check.influence import influence
from cutline.check.subject import Subject
from cutline.check.verdict import Finding, failed, not_judged, passed

STAGE = "labels"
TITLE = "no caption sees its own future"
WHY = "A caption that reads the words it has to predict drives the loss to nothing and learns nothing."
AFTER: tuple[str, ...] = ()


def probe(subject: Subject) -> Finding:
    found = influence(subject)
    if found is None:
        return not_judged("no two captions with one word exchanged could be compared")
    early = [place for place, changed in found.changed.items() if changed and place < found.place]
    if early:
        return failed(
            f"with another word at token {found.place + 1}, the predictions of {len(early)} earlier tokens changed",
            "The text's attention mask is not causal in training; PaliGemma, for one, needs token_type_ids that tell "
            "prompt and caption apart. Mend the family's batch.",
        )
    return passed(f"another word at token {found.place + 1} of {found.exchange.labels} changes nothing before it")
