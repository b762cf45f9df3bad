"""The model overfits two images until ``generate`` returns exactly their captions."""

from __future__ import annotations

import math

import torch
from PIL import ImageOps

from cutline.check.result import ProbeResult, failed, not_applicable, passed
from cutline.check.subject import ProbeSubject, labels_of
from cutline.families.settings import GenerateSettings
from cutline.train.trainable import open_parts

STAGE = "training"
TITLE = "overfits two images to their exact captions"
WHY = "A model that can't memorize two captions won't learn from thousands. A falling loss alone proves nothing."
AFTER = (
    "no_future",
    "label_alignment",
    "end_token",
    "one_bos",
    "prompt_not_learnt",
    "prompt_sees_itself",
    "image_tokens",
    "rows_apart",
    "batch_loss",
    "batch_generation",
    "training_is_generation",
    "trained_tensors_move",
)

STEPS, GENERATE_EVERY = 400, 20
#: Loss in nats per token below which captions are generated and compared.
LOW_LOSS = 0.3
TINY_LR, MIN_LR = 5e-3, 1e-4


def probe(subject: ProbeSubject) -> ProbeResult:
    if subject.train is None:
        return not_applicable("the recipe trains nothing")
    if subject.tiny:  # the frozen parts of a random miniature know nothing, so all of it is trained
        family = (subject.open_unquantized or subject.reopen)()
        open_parts(family, {})
        lr = TINY_LR
    else:
        family, lr = subject.family, max(10 * subject.train.lr, MIN_LR)
        assert subject.parts  # accessing it freezes and opens the parts
    samples, images = subject.typical
    if subject.tiny:  # a random vision tower barely distinguishes similar images
        images = [images[0], ImageOps.invert(images[0])]
    expected = [subject.normalized(sample.captions[0]) for sample in samples]
    batch = subject.batch(samples, images, targets=True, family=family)
    lengths = [len(labels) for labels in labels_of(batch)]
    settings = GenerateSettings(max_new_tokens=max(lengths) + 4)
    trained = [p for p in family.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=0.0)
    first = last = math.nan
    captions: list[str] = []
    for step in range(1, STEPS + 1):
        family.train()
        with subject.autocast():
            loss = family(batch)
        ((loss.nll + loss.penalty) / loss.tokens).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        last = float(loss.nll.detach() / loss.tokens)
        first = last if step == 1 else first
        if step % GENERATE_EVERY == 0 and (last < LOW_LOSS or step == STEPS):
            family.eval()
            with subject.autocast():
                generations = family.generate(subject.batch(samples, images, targets=False, family=family), settings)
            captions = [generation.text for generation in generations]
            if captions == expected and all(generation.finished for generation in generations):
                return passed(f"generates both captions exactly after {step} steps; loss {first:.2f} → {last:.3f}")
    wrong = next((index for index in range(2) if captions[index] != expected[index]), 0)
    return failed(
        f"after {STEPS} steps the loss is {last:.3f} nats per token (at first {first:.2f}), and the generated caption "
        f"is “{captions[wrong]}” instead of “{expected[wrong]}”",
        "If the loss stays high, train more parts or raise [train] lr. If it is low, training and generation differ.",
    )
