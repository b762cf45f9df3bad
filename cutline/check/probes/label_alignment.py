"""Alignment: the prediction of a token must be the first that the token before it has an influence on."""

from __future__ import annotations

from cutline.check.influence import influence
from cutline.check.subject import Subject
from cutline.check.verdict import Finding, failed, not_judged, passed

STAGE = "labels"
TITLE = "each label stands where it is predicted"
WHY = "Labels that are shifted twice, or not at all, train the model on the wrong token while the loss falls."
AFTER = ("no_future",)


def probe(subject: Subject) -> Finding:
    if any(taught.scored and taught.rows is None for taught in subject.alone):
        return failed(
            "the tokens that the loss scores are not the batch's labels",
            "Look at how the family's forward makes targets of the labels.",
        )
    found = influence(subject)
    if found is None:
        return not_judged("no two captions with one word exchanged could be compared")
    late = None if found.first is None else found.first - found.place
    if late == 1:
        return passed(f"a change of token {found.place + 1} shows first in the prediction of the next one")
    remedy = "The family's forward must shift labels by exactly one place; look whether the model shifts them, too."
    if late is None:
        return failed("an exchanged word changes no later prediction: the caption isn't read", remedy)
    if late <= 0:
        return failed(
            "each token is predicted from itself: the labels are not shifted, and the loss falls to 0", remedy
        )
    return failed(f"a token's influence comes {late - 1} labels late: the labels are shifted {late} times", remedy)
