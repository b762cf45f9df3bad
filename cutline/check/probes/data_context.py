"""The context that stands in the prompt doesn't give the caption away; judged by the audit of ``cutline inspect``."""

from __future__ import annotations

from cutline.check.subject import Subject
from cutline.check.verdict import Finding, failed, not_applicable, passed
from cutline.data.inspect.contexts import Contexts
from cutline.data.inspect.findings import why_leaks

STAGE = "data"
TITLE = "no context gives the caption away"
WHY = "A model that finds the caption in its prompt learns to copy, and its score means nothing."
AFTER: tuple[str, ...] = ()


def probe(subject: Subject) -> Finding:
    if subject.dataset is None or "{context}" not in subject.family.prompt:
        return not_applicable("the prompt has no context")
    audit = Contexts()
    for sample in subject.dataset:
        audit.add(sample)
    found = audit.facts()
    if found is None:
        return not_applicable("no image has a context")
    for field, facts in found.fields.items():
        if facts.verdict == "leaks":
            return failed(
                f"the context's {field!r} {why_leaks(facts)}",
                "Leave that field out of [data.columns] context, or take the caption out of its text.",
            )
    held = sum(facts.holds_caption for facts in found.fields.values())
    return passed(
        f"{found.images:,} images with context, and none gives its caption away"
        if not held
        else f"{held:,} of {found.images:,} contexts hold their caption, as may happen by chance"
    )
