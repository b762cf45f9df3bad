"""A few steps as the recipe trains: every tensor that is to be trained moves, and no frozen one does."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from cutline.check.subject import Subject
from cutline.check.verdict import Finding, failed, not_applicable, passed
from cutline.train.gradient_checkpointing import gradient_checkpointing

STAGE = "training"
TITLE = "what is to be trained moves, and nothing else"
WHY = "Adapters that hit nothing, or get no gradient, cost GPU hours and change nothing."
AFTER: tuple[str, ...] = ()

#: Two are needed where one factor of a product begins at zero, as LoRA's second matrix does.
STEPS = 3
LR = 1e-3


def probe(subject: Subject) -> Finding:
    if subject.train is None:
        return not_applicable("the recipe trains nothing")
    family = subject.family
    empty = [line for line in subject.parts if line.policy != "frozen" and line.parameters and not line.trainable]
    if empty:
        return failed(
            f'[train.parts] {empty[0].part} = "{empty[0].policy}" opens none of its {empty[0].parameters:,} parameters',
            "Name the modules that are to be adapted, or say another policy.",
        )
    trained = {name: p for name, p in family.model.named_parameters() if p.requires_grad}
    # buffers of modules that are trained may move (running means); those of frozen ones may not
    open_modules = {name.rpartition(".")[0] for name in trained}
    buffers = {name: b for name, b in family.model.named_buffers() if name.rpartition(".")[0] not in open_modules}
    frozen = {name: p for name, p in family.model.named_parameters() if name not in trained} | buffers
    before = {name: _hash(tensor) for name, tensor in (trained | frozen).items()}
    with gradient_checkpointing(family, subject.train.gradient_checkpointing):
        _steps(subject, trained.values())
    still = [name for name, tensor in trained.items() if _hash(tensor) == before[name]]
    moved = [name for name, tensor in frozen.items() if _hash(tensor) != before[name]]
    if moved:
        return failed(
            f"{len(moved)} tensors moved that should be frozen, {moved[0]} for one",
            "Look for weights that are tied to trained ones, and for statistics that a frozen module keeps.",
        )
    if still:
        return failed(
            f"{len(still)} of {len(trained)} tensors to be trained didn't move in {STEPS} steps, {still[0]} for one",
            "Nothing reads them, or no gradient comes through: name them in the family's `unused`, or look at gradient "
            "checkpointing.",
        )
    return passed(f"all {len(trained)} trained tensors moved; {len(frozen)} frozen ones stayed as they were")


def _steps(subject: Subject, trained: Iterable[Tensor]) -> None:
    assert subject.train is not None
    family = subject.family
    rate = LR if subject.tiny else min(LR, subject.train.lr)
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    family.train()
    batch = subject.batch(subject.samples, subject.pictures, targets=True)
    for _ in range(STEPS):
        with subject.arithmetic():
            loss = family(batch)
        ((loss.nll + loss.penalty) / loss.tokens).backward()
        optimizer.step()
        optimizer.zero_grad()
    family.eval()
    subject.notes.clear()


#: Integers of the same width as a tensor's numbers.
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _hash(tensor: Tensor) -> tuple[int, int]:
    """Changes when any bit of a tensor does: two sums of its bits read as whole numbers."""
    bits = tensor.detach().contiguous().flatten().view(_BITS[tensor.element_size()])
    return int(bits.sum(dtype=torch.int64)), int(bits[::2].sum(dtype=torch.int64))
