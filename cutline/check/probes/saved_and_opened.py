"""A checkpoint that is saved and opened again generates what the trained model did."""

from __future__ import annotations

import shutil

from cutline.check.subject import Said, Subject, far
from cutline.check.verdict import Finding, failed, not_applicable, not_judged, passed
from cutline.families.base import Family
from cutline.families.open import open_checkpoint

STAGE = "training"
TITLE = "saved and opened again, it says the same"
WHY = "Adapters, a prompt or an image policy that are not saved are noticed when the GPU hours are spent."
AFTER = ("batch_generation", "trained_tensors_move")


def probe(subject: Subject) -> Finding:
    if subject.train is None:
        return not_applicable("the recipe trains nothing")
    family = subject.family
    assert subject.parts  # opened: adapters must be there
    before = subject.force(subject.samples, subject.pictures, subject.labels)
    if before is None:
        return not_judged("generation of this family can't be made to say a given caption")
    folder = subject.scratch / "model"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        family.generation = subject.generate
        family.save(folder)
        dtype = str(family.dtype).removeprefix("torch.")
        opened = open_checkpoint(folder, dtype, str(family.device))  # type: ignore[arg-type]
    finally:
        family.generation = None
    lost = [name for name in ("prompt", "policy") if getattr(opened, name) != getattr(family, name)]
    if opened.generation != subject.generate or lost:
        return failed(
            f"the checkpoint has another {lost[0] if lost else 'way of generating'} than the model that was saved",
            "The family's save must end with save_policy.",
        )
    after = _with(subject, opened)
    shutil.rmtree(folder, ignore_errors=True)
    worst = max(
        far(one.logits.log_softmax(-1), other.logits.log_softmax(-1)) for one, other in zip(before, after, strict=True)
    )
    if worst > subject.tolerance:
        return failed(
            f"the log-probabilities of the same captions differ by {worst:.1g} of their size",
            "Look for weights that the family's save leaves out, and for what its load changes.",
        )
    return passed(f"the log-probabilities of {len(after)} captions agree to {worst:.1g}")


def _with(subject: Subject, opened: Family) -> list[Said]:
    family = subject.family
    try:
        subject.family = opened
        said = subject.force(subject.samples, subject.pictures, subject.labels)
    finally:
        subject.family = family
    assert said is not None
    return said
