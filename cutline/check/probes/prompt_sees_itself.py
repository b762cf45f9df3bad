"""Where a family's prompt or image attends to all of itself, it must do so here, in training and in generation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cutline.check.subject import Subject
from cutline.check.verdict import Finding, failed, not_applicable, not_judged, passed
from cutline.check.watch import nudged, text_layers
from cutline.families.base import Batch
from cutline.families.settings import GenerateSettings

STAGE = "labels"
TITLE = "the prompt sees itself where it should"
WHY = "A model that was pretrained with a prompt that attends to all of itself is another model without."
AFTER: tuple[str, ...] = ()


def probe(subject: Subject) -> Finding:
    wanted = sorted(subject.family.bidirectional)
    if not wanted:
        return not_applicable("this family's text is causal throughout, as it should be")
    layers = text_layers(subject.family)
    if not layers:
        return not_judged("the text part has no numbered layers")
    for targets in (True, False):
        batch = subject.batch(subject.samples[:1], subject.pictures[:1], targets=targets)
        for stretch in wanted:
            first, last = _ends(subject, batch, stretch)
            if not _reaches_back(subject, batch, first, last):
                return failed(
                    f"in {'training' if targets else 'generation'}, the {stretch}'s beginning doesn't see its end",
                    "Hand the model what marks the prompt (token_type_ids 0 for it, 1 for the caption).",
                )
    return passed(f"the beginning of the {' and of the '.join(wanted)} sees the end, in training and in generation")


def _ends(subject: Subject, batch: Batch, stretch: str) -> tuple[int, int]:
    """First and last place of a stretch in a batch of one row."""
    if stretch == "image":
        family: Any = subject.family
        places = torch.nonzero(batch["input_ids"][0] == family.image_token_id).flatten()
        return int(places[0]), int(places[-1])
    length = batch["input_ids"].shape[1]
    labels = len(subject.labels[0]) if "labels" in batch else 0
    return 0, length - labels - 1


def _reaches_back(subject: Subject, batch: Batch, first: int, last: int) -> bool:
    """Whether a change at the last place shows at the first one."""
    layers = text_layers(subject.family)
    said: list[Tensor] = []
    for place in (None, last):
        with torch.no_grad(), subject.arithmetic(), nudged(layers[0], layers[-1], place) as kept:
            if "labels" in batch:
                subject.family.loss(batch)
            else:
                subject.family.generate(batch, GenerateSettings(max_new_tokens=1))
        said.append(kept[0][0, first])
    return float((said[0] - said[1]).abs().max()) > subject.sensitivity * float(said[0].abs().max())
