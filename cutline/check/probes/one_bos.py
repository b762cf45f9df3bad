"""What the text part reads begins with one start token, in training and in generation."""

from __future__ import annotations

import torch

from cutline.check.subject import Subject
from cutline.check.verdict import Finding, failed, not_applicable, not_judged, passed
from cutline.check.watch import ids_read
from cutline.families.settings import GenerateSettings

STAGE = "labels"
TITLE = "one start token, in training and in generation"
WHY = "A second start token, or one that only one of the two has, is a prompt that the model was not trained on."
AFTER: tuple[str, ...] = ()


def probe(subject: Subject) -> Finding:
    family = subject.family
    start = family.tokenizer.bos_token_id
    if start is None:
        return not_applicable("this tokenizer has no start token")
    name = repr(family.tokenizer.convert_ids_to_tokens(start))
    counts: dict[str, int] = {}
    pair = subject.samples[:1], subject.pictures[:1]
    with torch.no_grad(), subject.arithmetic():
        with ids_read(family) as read:
            family.loss(subject.batch(*pair, targets=True))
        if not read:
            return not_judged("no table of token embeddings was read")
        # an end token that is also the start token is read at the end, if at all
        counts["training"] = _starts(read[0][0, :-1].tolist() or read[0][0].tolist(), start)
        with ids_read(family) as read:
            family.generate(subject.batch(*pair, targets=False), GenerateSettings(max_tokens=1))
        counts["generation"] = _starts(read[0][0].tolist(), start)
    said = f"{counts['training']} × {name} in training, {counts['generation']} × in generation"
    own = family.tokenizer("a")["input_ids"][:1] == [start]
    if max(counts.values()) > 1:
        return failed(
            said, "The prompt's template and the tokenizer both add one: tokenize with add_special_tokens off."
        )
    if counts["training"] != counts["generation"] or (own and not counts["training"]):
        return failed(said, "Make the family's encode put exactly one in front, with and without targets.")
    return passed(said)


def _starts(ids: list[int], start: int) -> int:
    return sum(token == start for token in ids)
