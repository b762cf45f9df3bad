"""A language model in 4 or 8 bits predicts about what it predicts in 16."""

from __future__ import annotations

import torch
from torch import Tensor

from cutline.check.subject import Subject
from cutline.check.verdict import Finding, failed, not_applicable, passed
from cutline.check.watch import CrossEntropies
from cutline.families.base import Family

STAGE = "batches"
TITLE = "in few bits it predicts as in 16"
WHY = "A model that is quantised wrongly answers nothing, or nonsense, and no training mends that."
AFTER: tuple[str, ...] = ()

#: Least correlation of a token's logits in few and in 16 bits, over the vocabulary and on average. NF4 errs by about
#: a tenth of a weight's size.
LEAST = 0.9


def probe(subject: Subject) -> Finding:
    if subject.whole is None:
        return not_applicable("all weights are kept in 16 or 32 bits")
    few, many = _logits(subject, subject.family), _logits(subject, subject.whole())
    pairs = torch.stack([few, many]).double()
    pairs = torch.nn.functional.normalize(pairs - pairs.mean(-1, keepdim=True), dim=-1)
    correlation = float((pairs[0] * pairs[1]).sum(-1).mean())
    said = f"logits in few and in 16 bits correlate by {correlation:.3f}"
    if not correlation >= LEAST:  # also when it is no number
        return failed(said, 'Leave [model] quantize out, or say "int8"; look at what else is quantised than the text.')
    return passed(said)


def _logits(subject: Subject, family: Family) -> Tensor:
    """The logits [M, V] of all labels of the subject's captions."""
    family.eval()
    batch = subject.batch(subject.samples, subject.pictures, targets=True, family=family)
    with torch.no_grad(), subject.arithmetic(), CrossEntropies() as seen:
        family.loss(batch)
    logits: Tensor = seen.logits
    return logits.cpu()
