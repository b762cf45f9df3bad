"""The context in the prompt doesn't give the caption away; judged by the same audit as ``cutline inspect``."""

from __future__ import annotations

from cutline.check.result import ProbeResult, failed, not_applicable, passed
from cutline.check.subject import ProbeSubject
from cutline.data.inspect.contexts import Contexts
from cutline.data.inspect.findings import why_leaks

STAGE = "data"
TITLE = "the context does not give the caption away"
WHY = "A model whose prompt contains the caption learns to copy it, and its score means nothing."
AFTER: tuple[str, ...] = ()


def probe(subject: ProbeSubject) -> ProbeResult:
    if subject.dataset is None or "{context}" not in subject.family.prompt:
        return not_applicable("the prompt contains no context")
    contexts = Contexts()
    for sample in subject.dataset:
        contexts.add(sample)
    audit = contexts.facts()
    if audit is None:
        return not_applicable("no image has a context")
    for field, facts in audit.fields.items():
        if facts.relation == "leaks":
            return failed(
                f"the context field {field!r} {why_leaks(facts)}",
                "Remove this field from [data.columns] context, or remove the caption from its text.",
            )
    containing = sum(facts.holds_caption for facts in audit.fields.values())
    if containing:
        return passed(f"{containing:,} of {audit.images:,} contexts contain their caption, few enough to be chance")
    return passed(f"none of {audit.images:,} contexts contains its caption")
