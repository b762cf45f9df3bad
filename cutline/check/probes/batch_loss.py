"""A batch of n has the loss of n batches of one, however its rows are padded."""

from __future__ import annotations

from dataclasses import replace

from cutline.check.result import ProbeResult, failed, not_judged, passed
from cutline.check.subject import ProbeSubject, relative_difference

STAGE = "batches"
TITLE = "the loss does not depend on the batch"
WHY = "If padding is attended to or scored, results depend on the batch size."
AFTER = ("rows_apart", "label_alignment")


def probe(subject: ProbeSubject) -> ProbeResult:
    together = subject.score(subject.samples, subject.images)
    alone = subject.scored_alone
    total = sum(batch.loss for batch in alone)
    difference = _relative(together.loss, total)
    if difference > subject.tolerance:
        return failed(
            f"the loss of {len(alone)} captions is {together.loss:.4f} nats in one batch and {total:.4f} one by one",
            "Mask padding by its length, both in the attention and in the labels.",
        )
    if together.captions is None or subject.scored_captions is None:
        return not_judged(f"the losses agree to {difference:.1g}, but their logits can't be split by caption")
    worst = max(
        relative_difference(one.logits, in_batch.logits)
        for one, in_batch in zip(subject.scored_captions, together.captions, strict=True)
    )
    if worst > subject.tolerance:
        return failed(
            f"a caption's logits change by {worst:.1g} (relative) if it is padded to the length of others",
            "Mask padding in the attention, and don't count it in the positions.",
        )
    # two captions of one image are two rows
    sample, images = subject.samples[0], subject.images[:1]
    captions = (sample.captions[0], subject.samples[1].captions[0])
    both = subject.score([replace(sample, captions=captions)], images).loss
    each = sum(subject.score([replace(sample, captions=(text,))], images).loss for text in captions)
    if _relative(both, each) > subject.tolerance:
        return failed(
            f"the loss of two captions of one image is {both:.4f} nats in one batch and {each:.4f} one by one",
            "Check how the family's collate assigns an image to each of its captions.",
        )
    return passed(f"{len(alone)} captions in one batch and one by one agree to {max(worst, difference):.1g}")


def _relative(loss: float, expected: float) -> float:
    return abs(loss - expected) / max(abs(expected), 1e-12)
