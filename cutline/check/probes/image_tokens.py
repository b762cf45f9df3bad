"""Every image keeps as many tokens as it has features, however long the text beside it, and no more than allowed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from PIL import Image

from cutline.check.subject import Subject
from cutline.check.verdict import Finding, failed, not_applicable, passed

STAGE = "labels"
TITLE = "no image token is cut, and none too many"
WHY = "A length limit that cuts through image tokens, or an image beyond its bound, breaks training late and oddly."
AFTER: tuple[str, ...] = ()

#: Words of the text that would be cut if anything were.
LONG = 4000


def probe(subject: Subject) -> Finding:
    family: Any = subject.family
    token = getattr(family, "image_token_id", None)
    if token is None or token < 0 or not hasattr(family, "image_tokens"):
        return not_applicable("the image stands beside the text, not in it")
    long = " ".join(["word"] * LONG)
    sample = subject.samples[0]
    texts = {
        "the captions": [replace(one, captions=one.captions) for one in subject.samples],
        f"a caption of {LONG:,} words": [replace(sample, captions=(long,))],
        f"a context of {LONG:,} words": [replace(sample, context={"text": long})],
    }
    found = []
    for what, samples in texts.items():
        for targets in (True, False):
            batch = family.collate(samples, with_targets=targets, images=subject.pictures[: len(samples)])
            expected = [int(count) for count in family.image_tokens(batch)]
            counts = (batch["input_ids"] == token).sum(1).tolist()
            found += counts
            if counts != expected:
                return failed(
                    f"beside {what}, images have {counts} tokens in the text where they have {expected} features",
                    "Cut caption or context before they are put together with the image's tokens, never after.",
                )
    bound = _bound(subject)
    if bound is not None:
        huge = Image.effect_mandelbrot((6000, 4000), (-2, -1.5, 1, 1.5), 2).convert("RGB")
        count = int(family.image_tokens(family.collate([sample], with_targets=False, images=[huge]))[0])
        if count > bound:
            return failed(
                f"an image of 6,000 × 4,000 px takes {count:,} tokens; [model.image] max_pixels allows {bound:,}",
                "Hand max_pixels to the image processor in the family's set_policy.",
            )
    limit = f", at most {bound:,}" if bound is not None else ""
    return passed(f"{min(found)} to {max(found)} tokens an image{limit}, as many as features")


def _bound(subject: Subject) -> int | None:
    """Tokens that ``max_pixels`` allows for one image; None where it isn't said."""
    processor, policy = subject.family.image_processor, subject.family.policy
    patch, merge = getattr(processor, "patch_size", None), getattr(processor, "merge_size", None)
    if policy.max_pixels is None or not isinstance(patch, int) or not isinstance(merge, int):
        return None
    return policy.max_pixels // (patch * merge) ** 2
