"""A batch of n has the loss of n batches of one, however its rows are padded."""

from __future__ import annotations

from dataclasses import replace

from cutline.check.subject import Subject, far
from cutline.check.verdict import Finding, failed, not_judged, passed

STAGE = "batches"
TITLE = "a batch is as good as its rows, in training"
WHY = "Padding that is seen, or scored, makes the result depend on the batch size."
AFTER = ("rows_apart", "label_alignment")


def probe(subject: Subject) -> Finding:
    together = subject.teach(subject.samples, subject.pictures)
    alone = subject.alone
    total = sum(taught.loss for taught in alone)
    apart = abs(together.loss - total) / max(abs(total), 1e-12)
    if apart > subject.tolerance:
        return failed(
            f"{len(alone)} captions have a loss of {together.loss:.4f} nats together and {total:.4f} one by one",
            "Mask padding in the attention and in the labels, by its length.",
        )
    if together.rows is None or subject.rows is None:
        return not_judged(f"the losses agree to {apart:.1g}, but their logits can't be told apart by row")
    worst = max(far(mine.logits, row.logits) for mine, row in zip(subject.rows, together.rows, strict=True))
    if worst > subject.tolerance:
        return failed(
            f"padded beside longer captions, a caption's logits differ by {worst:.1g} of their size",
            "Mask padding in the attention, and count positions without it.",
        )
    # two captions of one image are two rows of it
    captions = (subject.samples[0].captions[0], subject.samples[1].captions[0])
    both = subject.teach([replace(subject.samples[0], captions=captions)], subject.pictures[:1]).loss
    each = sum(
        subject.teach([replace(subject.samples[0], captions=(text,))], subject.pictures[:1]).loss for text in captions
    )
    if abs(both - each) / max(abs(each), 1e-12) > subject.tolerance:
        return failed(
            f"two captions of one image have a loss of {both:.4f} nats together and {each:.4f} one by one",
            "Look at how the family's encode gives several captions their image.",
        )
    return passed(f"{len(alone)} captions together and one by one agree to {max(worst, apart):.1g}")
