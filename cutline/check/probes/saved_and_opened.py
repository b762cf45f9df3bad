"""A checkpoint that is saved and opened again generates the same as the trained model."""

from __future__ import annotations

import shutil

from cutline.check.result import ProbeResult, failed, not_applicable, not_judged, passed
from cutline.check.subject import ProbeSubject, relative_difference
from cutline.families.open import open_checkpoint
from cutline.families.weights.dtypes import dtype_name

STAGE = "training"
TITLE = "a saved checkpoint gives the same results"
WHY = "Adapters, a prompt or an image policy that are not saved are lost, which shows only after training."
AFTER = ("batch_generation", "trained_tensors_move")


def probe(subject: ProbeSubject) -> ProbeResult:
    if subject.train is None:
        return not_applicable("the recipe trains nothing")
    family = subject.family
    assert subject.parts  # accessing it adds the adapters
    before = subject.force(subject.samples, subject.images, subject.labels)
    if before is None:
        return not_judged("this model's generation can't be forced to emit a given caption")
    folder = subject.scratch / "model"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        family.generation = subject.generate
        family.save(folder)
        dtype = dtype_name(family.dtype)
        opened = open_checkpoint(folder, dtype, str(family.device))  # type: ignore[arg-type]
    finally:
        family.generation = None
    lost = [name for name in ("prompt", "policy") if getattr(opened, name) != getattr(family, name)]
    if opened.generation != subject.generate:
        lost.append("generation settings")
    if lost:
        return failed(
            f"the opened checkpoint differs from the saved model in its {' and '.join(lost)}",
            "Call save_policy at the end of the family's save.",
        )
    after = subject.force(subject.samples, subject.images, subject.labels, family=opened)
    shutil.rmtree(folder, ignore_errors=True)
    assert after is not None  # the same family could be forced above
    worst = max(
        relative_difference(one.logits.log_softmax(-1), other.logits.log_softmax(-1))
        for one, other in zip(before, after, strict=True)
    )
    if worst > subject.tolerance:
        return failed(
            f"log-probabilities of the same captions before and after differ by {worst:.1g} (relative)",
            "Look for weights that the family's save leaves out, and for weights that its load changes.",
        )
    return passed(f"the log-probabilities of {len(after)} captions agree to {worst:.1g}")
