"""The prompt is neither a label nor part of the text that ``generate`` returns."""

from __future__ import annotations

from cutline.check.result import ProbeResult, failed, not_judged, passed
from cutline.check.subject import ProbeSubject

STAGE = "labels"
TITLE = "the prompt is neither a label nor in the output"
WHY = "A model that is trained on the prompt's tokens learns the prompt and repeats it in its captions."
AFTER: tuple[str, ...] = ()


def probe(subject: ProbeSubject) -> ProbeResult:
    for (sample, image), labels in zip(subject.pairs, subject.labels, strict=True):
        caption, label_text = subject.normalized(sample.captions[0]), subject.text_of(labels)
        if label_text != caption:
            return failed(
                f"the labels are “{_short(label_text)}”, but the caption is “{_short(caption)}”",
                "Make the family's collate label only the caption and the end token.",
            )
        forced = subject.force([sample], [image], [labels])
        if forced is None:
            return not_judged("this model's generation can't be forced to emit a given caption")
        text = forced[0].generation.text
        if text != caption:
            return failed(
                f"forced to emit “{_short(caption)}”, generation returns “{_short(text)}”",
                "Decode only the new tokens, those after the prompt.",
            )
    return passed("labels and generated texts contain the captions only")


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
