"""Training and generation give the same caption the same probability."""

from __future__ import annotations

from cutline.check.result import ProbeResult, failed, not_judged, passed
from cutline.check.subject import ProbeSubject, relative_difference

STAGE = "batches"
TITLE = "generation computes the same as training"
WHY = "If prompt, template, image size or mask differ between the two, a well-trained model generates bad captions."
AFTER = ("no_future", "label_alignment", "end_token", "one_bos", "prompt_not_learnt", "prompt_sees_itself")


def probe(subject: ProbeSubject) -> ProbeResult:
    if subject.scored_captions is None:
        return not_judged("the logits of the loss can't be split by caption")
    worst = 0.0
    for (sample, image), scored in zip(subject.pairs, subject.scored_captions, strict=True):
        forced = subject.force([sample], [image], [scored.labels])
        if forced is None:
            return not_judged("this model's generation can't be forced to emit a given caption")
        generated = forced[0].logits[scored.first_scored :].log_softmax(-1)
        worst = max(worst, relative_difference(scored.logits.log_softmax(-1), generated))
    if worst > 10 * subject.tolerance:
        return failed(
            f"log-probabilities of the same captions in training and generation differ by {worst:.1g} (relative)",
            "Compare the family's collate with and without targets: prompt, template, image tokens, masks, positions.",
        )
    return passed(f"the log-probabilities of {len(subject.scored_captions)} captions agree to {worst:.1g}")
