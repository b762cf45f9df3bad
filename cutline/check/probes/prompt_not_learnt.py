"""The prompt is no label, and no part of the caption that is read off what was generated."""

from __future__ import annotations

from cutline.check.subject import Subject
from cutline.check.verdict import Finding, failed, not_judged, passed

STAGE = "labels"
TITLE = "the prompt is neither learnt nor said"
WHY = "A prompt among the labels is learnt instead of captions, and comes out as part of them."
AFTER: tuple[str, ...] = ()


def probe(subject: Subject) -> Finding:
    for (sample, picture), row in zip(subject.pairs, subject.labels, strict=True):
        caption, label = subject.spelled(sample.captions[0]), subject.text_of(row)
        if label != caption:
            return failed(
                f"the labels say “{_short(label)}” where the caption is “{_short(caption)}”",
                "The family's encode must leave everything but caption and end token out of the labels.",
            )
        said = subject.force([sample], [picture], [row])
        if said is None:
            return not_judged("generation of this family can't be made to say a given caption")
        if said[0].generation.text != caption:
            return failed(
                f"made to say “{_short(caption)}”, generation gives “{_short(said[0].generation.text)}”",
                "Decode only the new tokens, those behind the prompt.",
            )
    return passed("labels and generated texts are the captions, and nothing else")


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
