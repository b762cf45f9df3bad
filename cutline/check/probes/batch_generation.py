"""A batch of n generates what n batches of one do, so the padding of prompts is masked."""

from __future__ import annotations

from cutline.check.result import ProbeResult, failed, not_judged, passed
from cutline.check.subject import ProbeSubject, relative_difference

STAGE = "batches"
TITLE = "generation does not depend on the batch"
WHY = "If prompts are padded on the wrong side, or padding is not masked, larger batches give worse captions."
AFTER = ("rows_apart",)


def probe(subject: ProbeSubject) -> ProbeResult:
    together = subject.force(subject.samples, subject.images, subject.labels)
    if together is None:
        return not_judged("this model's generation can't be forced to emit a given caption")
    worst = 0.0
    for (sample, image), labels, in_batch in zip(subject.pairs, subject.labels, together, strict=True):
        alone = subject.force([sample], [image], [labels])
        assert alone is not None  # the same family could be forced above
        worst = max(worst, relative_difference(alone[0].logits.log_softmax(-1), in_batch.logits.log_softmax(-1)))
    if worst > subject.tolerance:
        return failed(
            f"log-probabilities of the same captions in a batch and alone differ by {worst:.1g} (relative)",
            "Pad prompts on the left for generation, and mask the padding.",
        )
    return passed(f"{len(subject.samples)} captions in one batch and one by one agree to {worst:.1g}")
