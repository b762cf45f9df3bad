"""The text input has the same single start token in training and in generation."""

from __future__ import annotations

import torch

from cutline.check.recorders import record_token_ids
from cutline.check.result import ProbeResult, failed, not_applicable, not_judged, passed
from cutline.check.subject import ProbeSubject
from cutline.families.settings import GenerateSettings

STAGE = "labels"
TITLE = "the text has one start token"
WHY = "With a second start token, or one in training only, the model generates from a prompt it was not trained on."
AFTER: tuple[str, ...] = ()


def probe(subject: ProbeSubject) -> ProbeResult:
    family = subject.family
    start = family.tokenizer.bos_token_id
    if start is None:
        return not_applicable("this tokenizer has no start token")
    in_training, in_generation = _count(subject, start, targets=True), _count(subject, start, targets=False)
    if in_training is None or in_generation is None:
        return not_judged("the model reads no embedding of token ids")
    name = repr(family.tokenizer.convert_ids_to_tokens(start))
    message = f"{in_training} × {name} in training, {in_generation} × in generation"
    if max(in_training, in_generation) > 1:
        return failed(
            message, "The prompt's template and the tokenizer both add one: tokenize with add_special_tokens=False."
        )
    tokenizer_adds_one = family.tokenizer("a")["input_ids"][:1] == [start]
    if in_training != in_generation or (tokenizer_adds_one and not in_training):
        return failed(message, "Make the family's collate add exactly one start token, with and without targets.")
    return passed(message)


def _count(subject: ProbeSubject, start: int, *, targets: bool) -> int | None:
    """Start tokens in the text of one row; None if no token ids are embedded."""
    family = subject.family
    batch = subject.batch(subject.samples[:1], subject.images[:1], targets=targets)
    with torch.no_grad(), subject.autocast(), record_token_ids(family) as recorded:
        if targets:
            family.loss(batch)
        else:
            family.generate(batch, GenerateSettings(max_new_tokens=1))
    # some models replace image tokens before they embed the ids, so the batch is better; but it lacks a decoder's text
    ids = batch["input_ids"] if "input_ids" in batch else recorded[0] if recorded else None
    if ids is None:
        return None
    tokens: list[int] = ids[0].tolist()
    if targets and len(tokens) > 1:
        tokens = tokens[:-1]  # the last one may be an end token that is also the start token
    return sum(token == start for token in tokens)
