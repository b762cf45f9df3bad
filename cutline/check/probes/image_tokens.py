"""Every image has as many tokens as features, however long the text beside it, and no more than allowed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from PIL import Image

from cutline.check.result import ProbeResult, failed, not_applicable, passed
from cutline.check.subject import ProbeSubject

STAGE = "labels"
TITLE = "every image has exactly its tokens"
WHY = "A length limit that cuts off image tokens, or an image above its limit, causes an error late in training."
AFTER: tuple[str, ...] = ()

#: Words in the long texts. They exceed any length limit.
LONG = 4000


def probe(subject: ProbeSubject) -> ProbeResult:
    family: Any = subject.family
    token = getattr(family, "image_token_id", None)
    if token is None or token < 0 or not hasattr(family, "image_tokens"):
        return not_applicable("this model has no image tokens in its text")
    long_text = " ".join(["word"] * LONG)
    sample = subject.samples[0]
    batches = {
        "the captions": subject.samples,
        f"a caption of {LONG:,} words": [replace(sample, captions=(long_text,))],
        f"a context of {LONG:,} words": [replace(sample, context={"text": long_text})],
    }
    all_counts: list[int] = []
    for text, samples in batches.items():
        for targets in (True, False):
            batch = family.collate(samples, with_targets=targets, images=subject.images[: len(samples)])
            expected = [int(count) for count in family.image_tokens(batch)]
            counts = (batch["input_ids"] == token).sum(1).tolist()
            all_counts += counts
            if counts != expected:
                return failed(
                    f"beside {text}, images have {counts} tokens in the text but {expected} features",
                    "Truncate the caption or context before the image's tokens are added, never after.",
                )
    limit = _limit(subject)
    if limit is not None:
        huge = Image.new("RGB", (6000, 4000))
        count = int(family.image_tokens(family.collate([sample], with_targets=False, images=[huge]))[0])
        if count > limit:
            return failed(
                f"an image of 6,000 × 4,000 px takes {count:,} tokens; [model.image] max_pixels allows {limit:,}",
                "Pass max_pixels to the image processor in the family's set_policy.",
            )
    allowed = f" (the limit is {limit:,})" if limit is not None else ""
    return passed(f"images have {min(all_counts)} to {max(all_counts)} tokens, as many as features{allowed}")


def _limit(subject: ProbeSubject) -> int | None:
    """The tokens that ``max_pixels`` allows for one image; None if it isn't set or the processor has no patches."""
    processor, policy = subject.family.image_processor, subject.family.policy
    patch, merge = getattr(processor, "patch_size", None), getattr(processor, "merge_size", None)
    if policy.max_pixels is None or not isinstance(patch, int) or not isinstance(merge, int):
        return None
    return policy.max_pixels // (patch * merge) ** 2
