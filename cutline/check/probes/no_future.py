"""Causality: changing a word leaves the predictions before it unchanged."""

from __future__ import annotations

from cutline.check.influence import influence
from cutline.check.result import ProbeResult, failed, not_judged, passed
from cutline.check.subject import ProbeSubject

STAGE = "labels"
TITLE = "no token sees later tokens"
WHY = "If the model sees the words that it has to predict, the loss falls to 0 and nothing is learned."
AFTER: tuple[str, ...] = ()


def probe(subject: ProbeSubject) -> ProbeResult:
    result = influence(subject)
    if result is None:
        return not_judged("no two captions that differ in one word could be compared")
    position = result.pair.position
    early = [index for index, changed in result.changed.items() if changed and index < position]
    if early:
        return failed(
            f"changing token {position + 1} changes the predictions of {len(early)} earlier tokens",
            "Make the text's attention mask causal in training. Some models need an input for this: PaliGemma needs "
            "token_type_ids that separate prompt and caption.",
        )
    return passed(f"changing token {position + 1} of {result.pair.length} changes no earlier prediction")
