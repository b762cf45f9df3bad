"""Training and generation compute the same: made to say a caption, generation finds it as likely as the loss says."""

from __future__ import annotations

from cutline.check.subject import Subject, far
from cutline.check.verdict import Finding, failed, not_judged, passed

STAGE = "batches"
TITLE = "generation computes what training does"
WHY = "Another prompt, template, image size or mask in one of the two makes a well-trained model caption badly."
AFTER = ("no_future", "label_alignment", "end_token", "one_bos", "prompt_not_learnt", "prompt_sees_itself")


def probe(subject: Subject) -> Finding:
    if subject.rows is None:
        return not_judged("the logits behind the loss can't be told apart by row")
    worst = 0.0
    for (sample, picture), row in zip(subject.pairs, subject.rows, strict=True):
        said = subject.force([sample], [picture], [row.labels])
        if said is None:
            return not_judged("generation of this family can't be made to say a given caption")
        worst = max(worst, far(row.logits.log_softmax(-1), said[0].logits[row.first :].log_softmax(-1)))
    if worst > 10 * subject.tolerance:
        return failed(
            f"the log-probabilities of the same captions differ by {worst:.1g} of their size",
            "Compare what encode makes with targets and without: prompt, template, image tokens, masks, positions.",
        )
    return passed(f"the log-probabilities of {len(subject.rows)} captions agree to {worst:.1g}")
