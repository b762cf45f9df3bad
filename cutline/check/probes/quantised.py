"""A language model in 4 or 8 bits predicts about the same as in 16."""

from __future__ import annotations

import torch
from torch import Tensor

from cutline.check.recorders import CrossEntropyRecorder
from cutline.check.result import ProbeResult, failed, not_applicable, passed
from cutline.check.subject import ProbeSubject
from cutline.families.base import Family

STAGE = "batches"
TITLE = "quantised predictions agree with 16-bit ones"
WHY = "A wrongly quantised model generates nothing, or nonsense, and training can't repair it."
AFTER: tuple[str, ...] = ()

#: The lowest accepted correlation of quantised and 16-bit logits over the vocabulary, averaged over tokens. The error
#: of NF4 is about a tenth of a weight's size.
MIN_CORRELATION = 0.9


def probe(subject: ProbeSubject) -> ProbeResult:
    if subject.open_unquantized is None:
        return not_applicable("no weights are quantised")
    quantised, full = _logits(subject, subject.family), _logits(subject, subject.open_unquantized())
    pair = torch.stack([quantised, full]).double()
    pair = torch.nn.functional.normalize(pair - pair.mean(-1, keepdim=True), dim=-1)
    correlation = float((pair[0] * pair[1]).sum(-1).mean())
    message = f"quantised and 16-bit logits have a correlation of {correlation:.3f}"
    if not correlation >= MIN_CORRELATION:  # written this way to fail for NaN too
        return failed(
            message,
            'Remove [model] quantize, or set it to "int8". Check that only the language model is quantised.',
        )
    return passed(message)


def _logits(subject: ProbeSubject, family: Family) -> Tensor:
    """The logits [M, V] of all labels of the subject's captions."""
    family.eval()
    batch = subject.batch(subject.samples, subject.images, targets=True, family=family)
    with torch.no_grad(), subject.autocast(), CrossEntropyRecorder() as recorder:
        family.loss(batch)
    logits: Tensor = recorder.logits
    return logits.cpu()
