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
    with torch.no_grad(), subject.arithmetic():
        for place, targets in (("training", True), ("generation", False)):
            batch = subject.batch(subject.samples[:1], subject.pictures[:1], targets=targets)
            with ids_read(family) as read:
                if targets:
                    family.loss(batch)
                else:
                    family.generate(batch, GenerateSettings(max_new_tokens=1))
            # what stands in an image's place is not read as a token; and a decoder's text isn't in its batch
            ids = batch["input_ids"] if "input_ids" in batch else read[0] if read else None
            if ids is None:
                return not_judged("no table of token embeddings was read")
            text = ids[0].tolist()
            # an end token that is a start token, too, may stand at the end
            counts[place] = sum(token == start for token in (text[:-1] or text if targets else text))
    said = f"{counts['training']} × {name} in training, {counts['generation']} × in generation"
    own = family.tokenizer("a")["input_ids"][:1] == [start]
    if max(counts.values()) > 1:
        return failed(
            said, "The prompt's template and the tokenizer both add one: tokenize with add_special_tokens off."
        )
    if counts["training"] != counts["generation"] or (own and not counts["training"]):
        return failed(said, "Make the family's encode put exactly one in front, with and without targets.")
    return passed(said)
