"""Row leak: what one caption and image are must not matter to the others of the batch."""

from __future__ import annotations

from dataclasses import replace

from PIL import ImageOps

from cutline.check.influence import exchange
from cutline.check.subject import Subject, far
from cutline.check.verdict import Finding, failed, not_judged, passed

STAGE = "batches"
TITLE = "no caption depends on its neighbours in the batch"
WHY = "Captions that read each other, or another row's image, are learnt from what will not be there later."
AFTER: tuple[str, ...] = ()


def probe(subject: Subject) -> Finding:
    pair = exchange(subject)
    if pair is None:
        return not_judged("no two captions with one word exchanged could be compared")
    mine, my_picture = subject.pairs[-1]
    other, picture = subject.pairs[0]
    neighbours = [
        (replace(other, captions=(pair.one,)), picture),
        (replace(other, captions=(pair.other,)), ImageOps.invert(ImageOps.mirror(picture))),
    ]
    for mine_first in (True, False):
        seen = []
        for neighbour, beside in neighbours:
            rows = [(mine, my_picture), (neighbour, beside)]
            rows = rows if mine_first else rows[::-1]
            taught = subject.teach([sample for sample, _ in rows], [image for _, image in rows]).rows
            if taught is None:
                return not_judged("the logits behind the loss can't be told apart by row")
            seen.append(taught[0 if mine_first else 1].logits)
        apart = far(*seen)
        if apart > subject.sensitivity:
            place = "after" if mine_first else "before"
            return failed(
                f"another image and caption {place} it changed a caption's logits by {apart:.1g} of their size",
                "Look for what is computed over the batch: normalisation in training mode, masks or positions of rows.",
            )
    return passed("with another neighbour, a caption's logits stay the same to the last digit that counts")
