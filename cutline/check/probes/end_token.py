"""The last label of every caption is a token that ends generation."""

from __future__ import annotations

from cutline.check.result import ProbeResult, failed, not_judged, passed
from cutline.check.subject import ProbeSubject

STAGE = "labels"
TITLE = "the last label is an end token"
WHY = "A model that never learns to stop generates until the length limit."
AFTER: tuple[str, ...] = ()


def probe(subject: ProbeSubject) -> ProbeResult:
    tokenizer = subject.family.tokenizer
    ends = sorted(subject.end_ids)
    if not ends:
        return failed("the model has no end token", "Set generation_config.eos_token_id in the checkpoint.")
    names = ", ".join(repr(tokenizer.convert_ids_to_tokens(end)) for end in ends)
    wrong = [labels for labels in subject.labels if not labels or labels[-1] not in ends]
    if wrong:
        last = repr(tokenizer.convert_ids_to_tokens(wrong[0][-1])) if wrong[0] else "nothing"
        padding_is_end = tokenizer.pad_token_id in ends
        return failed(
            f"the last label of {len(wrong)} of {len(subject.labels)} captions is {last}, not {names}",
            "The padding token is also the end token here: mask padding by its length, never by its id."
            if padding_is_end
            else "Make the family's collate add the end token to every caption, as a label.",
        )
    for (sample, image), labels in zip(subject.pairs, subject.labels, strict=True):
        forced = subject.force([sample], [image], [labels])
        if forced is None:
            return not_judged("this model's generation can't be forced to emit a given caption")
        if not forced[0].generation.finished:
            return failed(
                f"generation continues after the end token used in training, {labels[-1]}",
                "Add the end token used in training to generation_config.eos_token_id.",
            )
    return passed(f"the last label of every caption is {names}, and it stops generation")
