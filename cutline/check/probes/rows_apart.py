"""Row leak: a row's logits don't depend on the image and caption of another row."""

from __future__ import annotations

from dataclasses import replace

from PIL import ImageOps

from cutline.check.influence import caption_pair
from cutline.check.result import ProbeResult, failed, not_judged, passed
from cutline.check.subject import ProbeSubject, relative_difference

STAGE = "batches"
TITLE = "no row depends on other rows of its batch"
WHY = "A model that uses another row's caption or image in training doesn't have it when it captions one image."
AFTER: tuple[str, ...] = ()


def probe(subject: ProbeSubject) -> ProbeResult:
    pair = caption_pair(subject)
    if pair is None:
        return not_judged("no two captions that differ in one word could be compared")
    row = subject.pairs[-1]
    sample, image = subject.pairs[0]
    neighbours = [
        (replace(sample, captions=(pair.first,)), image),
        (replace(sample, captions=(pair.second,)), ImageOps.invert(ImageOps.mirror(image))),
    ]
    for index in (0, 1):  # of the row in the batch
        logits = []
        for neighbour in neighbours:
            batch = [row, neighbour] if index == 0 else [neighbour, row]
            captions = subject.score([sample for sample, _ in batch], [image for _, image in batch]).captions
            if captions is None:
                return not_judged("the logits of the loss can't be split by caption")
            logits.append(captions[index].logits)
        difference = relative_difference(*logits)
        if difference > subject.sensitivity:
            where = "after" if index == 0 else "before"
            return failed(
                f"another image and caption {where} it change a caption's logits by {difference:.1g} (relative)",
                "Look for computations over the batch: normalization in training mode, or masks and positions of "
                "other rows.",
            )
    return passed("a caption's logits stay the same with another image and caption in its batch")
