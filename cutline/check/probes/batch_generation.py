"""A batch of n generates what n batches of one do: the padding of prompts must not be seen."""

from __future__ import annotations

from cutline.check.subject import Subject, far
from cutline.check.verdict import Finding, failed, not_judged, passed

STAGE = "batches"
TITLE = "a batch is as good as its rows, in generation"
WHY = "Prompts padded on the wrong side, or padding that is seen, make captions worse the larger the batch."
AFTER = ("rows_apart",)


def probe(subject: Subject) -> Finding:
    together = subject.force(subject.samples, subject.pictures, subject.labels)
    if together is None:
        return not_judged("generation of this family can't be made to say a given caption")
    worst = 0.0
    for place, (sample, picture) in enumerate(subject.pairs):
        alone = subject.force([sample], [picture], [subject.labels[place]])
        assert alone is not None  # it could be made to, just before
        worst = max(worst, far(alone[0].logits.log_softmax(-1), together[place].logits.log_softmax(-1)))
    if worst > subject.tolerance:
        return failed(
            f"in a batch, the log-probabilities of the same captions differ by {worst:.1g} of their size",
            "Pad prompts on the left for generation, and mask the padding.",
        )
    return passed(f"{len(subject.samples)} captions together and one by one agree to {worst:.1g}")
