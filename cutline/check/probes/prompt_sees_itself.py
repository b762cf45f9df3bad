"""If a family's prompt or image tokens attend to one another in both directions, they do so here too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cutline.check.recorders import perturbed, text_layers
from cutline.check.result import ProbeResult, failed, not_applicable, not_judged, passed
from cutline.check.subject import ProbeSubject
from cutline.families.base import Batch
from cutline.families.settings import GenerateSettings

STAGE = "labels"
TITLE = "attention is bidirectional where it should be"
WHY = "A model that was pretrained with bidirectional attention over its prompt works badly with a causal mask."
AFTER: tuple[str, ...] = ()


def probe(subject: ProbeSubject) -> ProbeResult:
    spans = sorted(subject.family.bidirectional)
    if not spans:
        return not_applicable("this model's text is causal everywhere")
    if not text_layers(subject.family):
        return not_judged("the text part has no numbered layers")
    for targets in (True, False):
        batch = subject.batch(subject.samples[:1], subject.images[:1], targets=targets)
        for span in spans:
            first, last = _ends(subject, batch, span)
            if not _influences(subject, batch, last, first):
                return failed(
                    f"in {'training' if targets else 'generation'}, the start of the {span} does not see its end",
                    "Pass the model what marks the prompt (token_type_ids: 0 for the prompt, 1 for the caption).",
                )
    return passed(f"the start of the {' and of the '.join(spans)} sees the end, in training and in generation")


def _ends(subject: ProbeSubject, batch: Batch, span: str) -> tuple[int, int]:
    """The first and the last position of a span ("image" or "prompt") in a batch of one row."""
    if span == "image":
        family: Any = subject.family
        positions = torch.nonzero(batch["input_ids"][0] == family.image_token_id).flatten()
        return int(positions[0]), int(positions[-1])
    length = batch["input_ids"].shape[1]
    labels = len(subject.labels[0]) if "labels" in batch else 0
    return 0, length - labels - 1


def _influences(subject: ProbeSubject, batch: Batch, source: int, target: int) -> bool:
    """Whether a perturbation at position ``source`` changes the output at position ``target``."""
    layers = text_layers(subject.family)
    hidden: list[Tensor] = []
    for position in (None, source):
        with torch.no_grad(), subject.autocast(), perturbed(layers[0], layers[-1], position) as outputs:
            if "labels" in batch:
                subject.family.loss(batch)
            else:
                subject.family.generate(batch, GenerateSettings(max_new_tokens=1))
        hidden.append(outputs[0][0, target])
    before, after = hidden
    return float((before - after).abs().max()) > subject.sensitivity * float(before.abs().max())
