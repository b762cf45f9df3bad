"""A few training steps change every trainable tensor, and no frozen one."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from cutline.check.result import ProbeResult, failed, not_applicable, passed
from cutline.check.subject import ProbeSubject
from cutline.train.gradient_checkpointing import gradient_checkpointing

STAGE = "training"
TITLE = "training changes trainable tensors only"
WHY = "Adapters that match no module or get no gradient cost GPU hours and change nothing."
AFTER: tuple[str, ...] = ()

#: One step isn't enough if one factor of a product starts at zero, as LoRA's second matrix does.
STEPS = 3
LR = 1e-3


def probe(subject: ProbeSubject) -> ProbeResult:
    if subject.train is None:
        return not_applicable("the recipe trains nothing")
    family = subject.family
    empty = [part for part in subject.parts if part.policy != "frozen" and part.parameters and not part.trainable]
    if empty:
        part = empty[0]
        return failed(
            f'[train.parts] {part.part} = "{part.policy}" makes none of its {part.parameters:,} parameters trainable',
            "Name the modules to adapt, or use another policy.",
        )
    trained = {name: p for name, p in family.model.named_parameters() if p.requires_grad}
    # buffers of trained modules may change (running means); those of frozen modules may not
    open_modules = {name.rpartition(".")[0] for name in trained}
    buffers = {name: b for name, b in family.model.named_buffers() if name.rpartition(".")[0] not in open_modules}
    frozen = {name: p for name, p in family.model.named_parameters() if name not in trained} | buffers
    before = {name: _hash(tensor) for name, tensor in (trained | frozen).items()}
    with gradient_checkpointing(family, subject.train.gradient_checkpointing):
        _train(subject, trained.values())
    unchanged = [name for name, tensor in trained.items() if _hash(tensor) == before[name]]
    changed = [name for name, tensor in frozen.items() if _hash(tensor) != before[name]]
    if changed:
        return failed(
            f"{len(changed)} frozen tensors changed, for example {changed[0]}",
            "Look for weights tied to trained ones, and for statistics that a frozen module updates.",
        )
    if unchanged:
        return failed(
            f"{len(unchanged)} of {len(trained)} trainable tensors didn't change in {STEPS} steps, for example "
            f"{unchanged[0]}",
            "They are not used, or get no gradient: list them in the family's `unused`, or check gradient "
            "checkpointing.",
        )
    return passed(f"all {len(trained)} trainable tensors changed; {len(frozen)} frozen ones did not")


def _train(subject: ProbeSubject, trained: Iterable[Tensor]) -> None:
    assert subject.train is not None
    family = subject.family
    lr = LR if subject.tiny else min(LR, subject.train.lr)
    optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=0.0)
    family.train()
    batch = subject.batch(subject.samples, subject.images, targets=True)
    for _ in range(STEPS):
        with subject.autocast():
            loss = family(batch)
        ((loss.nll + loss.penalty) / loss.tokens).backward()
        optimizer.step()
        optimizer.zero_grad()
    family.eval()
    subject.cache.clear()


#: The integer type of the same width as a tensor's numbers, by bytes.
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _hash(tensor: Tensor) -> tuple[int, int]:
    """Two sums of the tensor's bits, read as integers. They change with any one bit."""
    bits = tensor.detach().contiguous().flatten().view(_INTEGERS[tensor.element_size()])
    return int(bits.sum(dtype=torch.int64)), int(bits[::2].sum(dtype=torch.int64))
