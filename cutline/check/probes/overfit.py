"""Two images are learnt by heart, until generation says exactly their captions."""

from __future__ import annotations

import math

import torch
from PIL import ImageOps

from cutline.check.subject import Subject
from cutline.check.verdict import Finding, failed, not_applicable, passed
from cutline.families.settings import GenerateSettings
from cutline.train.trainable import open_parts

STAGE = "training"
TITLE = "two images can be learnt until their captions come"
WHY = "What can't learn two captions by heart won't learn thousands; a falling loss alone proves nothing."
AFTER = (
    "no_future", "label_alignment", "end_token", "one_bos", "prompt_not_learnt", "prompt_sees_itself", "image_tokens",
    "rows_apart", "batch_loss", "batch_generation", "training_is_generation", "trained_tensors_move",
)  # fmt: skip

STEPS, LOOK_EVERY = 400, 20
#: Loss in nats a token below which captions are generated to look.
NEAR = 0.3
TINY_LR, SMALLEST_LR = 5e-3, 1e-4


def probe(subject: Subject) -> Finding:
    if subject.train is None:
        return not_applicable("the recipe trains nothing")
    if subject.tiny:  # frozen parts of a random miniature know nothing, so all of it must learn
        family = (subject.whole or subject.fresh)()
        open_parts(family, {})
        rate = TINY_LR
    else:
        family, rate = subject.family, max(10 * subject.train.lr, SMALLEST_LR)
        assert subject.parts  # opened as the recipe says
    samples, pictures = subject.samples[:2], subject.pictures[:2]
    if subject.tiny:  # a random tower hardly tells similar pictures apart
        pictures = [pictures[0], ImageOps.invert(pictures[0])]
    wanted = [subject.spelled(sample.captions[0]) for sample in samples]
    settings = GenerateSettings(max_new_tokens=max(map(len, subject.labels[:2])) + 4)
    batch = subject.batch(samples, pictures, targets=True, family=family)
    optimizer = torch.optim.AdamW([p for p in family.parameters() if p.requires_grad], lr=rate, weight_decay=0.0)
    first = last = math.nan
    said: list[str] = []
    for step in range(1, STEPS + 1):
        family.train()
        with subject.arithmetic():
            loss = family(batch)
        mean = (loss.nll + loss.penalty) / loss.tokens
        mean.backward()
        torch.nn.utils.clip_grad_norm_([p for p in family.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        last = float(loss.nll.detach() / loss.tokens)
        first = first if step > 1 else last
        if step % LOOK_EVERY == 0 and (last < NEAR or step == STEPS):
            family.eval()
            with subject.arithmetic():
                made = family.generate(subject.batch(samples, pictures, targets=False, family=family), settings)
            said = [one.text for one in made]
            if said == wanted and all(one.finished for one in made):
                return passed(
                    f"both captions are generated exactly after {step} steps; the loss fell {first:.2f} → {last:.3f}"
                )
    return failed(
        f"after {STEPS} steps the loss is {last:.3f} nats a token (it began at {first:.2f}), and generation says "
        f"“{said[0]}” instead of “{wanted[0]}”",
        "If the loss didn't fall, open more parts or raise [train] lr; if it did, training and generation differ.",
    )
