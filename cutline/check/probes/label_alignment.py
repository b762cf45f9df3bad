"""Label shift: a token first influences the prediction of the next one."""

from __future__ import annotations

from cutline.check.influence import influence
from cutline.check.result import ProbeResult, failed, not_judged, passed
from cutline.check.subject import ProbeSubject

STAGE = "labels"
TITLE = "labels are shifted by exactly one position"
WHY = "With labels shifted twice, or not at all, the loss falls but the model learns the wrong tokens."
AFTER = ("no_future",)


def probe(subject: ProbeSubject) -> ProbeResult:
    if any(batch.has_cross_entropy and batch.captions is None for batch in subject.scored_alone):
        return failed(
            "the tokens that the loss scores are not the labels of the batch",
            "Check how the family's forward makes targets from the labels.",
        )
    result = influence(subject)
    if result is None:
        return not_judged("no two captions that differ in one word could be compared")
    position = result.pair.position
    remedy = "Make the family's forward shift labels by one position. Check whether the model shifts them as well."
    if result.first_changed is None:
        return failed("changing a word changes no later prediction: the caption is not read", remedy)
    shift = result.first_changed - position
    if shift == 1:
        return passed(f"changing token {position + 1} first changes the prediction of the next token")
    if shift <= 0:
        return failed(
            "each token is predicted from itself: the labels are not shifted, and the loss falls to 0", remedy
        )
    return failed(
        f"a token first influences the prediction {shift} positions later: the labels are shifted {shift} times", remedy
    )
