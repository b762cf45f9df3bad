"""Named entities as the news protocol scores them: exact match of text and label, counted over all captions together.

Tran, Mathews and Xie 2020, "Transform and Tell": precision and recall of the entities of the captions against those of
the references (the first reference of each image), by default for all labels, and for PERSON, ORG, GPE and DATE by
themselves; and recall of rare names, PERSON entities that no training caption holds.

The entities come from a function from captions to their entities. By default that is spaCy's ``en_core_web_lg``
(extra ``news``); entities that are already known go in through a function, too:

    score(predictions, references, ["bleu4", lambda r: Entities(r, find=my_find)], tokenizer=NewsTokenizer())
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, cached_property

import numpy as np

from cutline.errors import ScoreError
from cutline.metrics.base import Candidates, Floats, Metric, References

SCORES = (
    "entity_precision", "entity_recall", "entity_f1",
    "person_precision", "person_recall", "org_precision", "org_recall",
    "gpe_precision", "gpe_recall", "date_precision", "date_recall",
    "rare_name_recall",
)  # fmt: skip

#: The text and the label of each entity of each caption.
Find = Callable[[Sequence[str]], list[list[tuple[str, str]]]]

_KINDS = ("", "PERSON", "ORG", "GPE", "DATE")
_MODEL = "en_core_web_lg"


class Entities(Metric):
    """Statistics an image: for each kind right, in the caption, in the reference; then rare names right, and all.

    Args:
        find: finds the entities of captions; spaCy when None.
        name: what finds them, for the signature.
    """

    scores = SCORES
    uses_tokens = False

    def __init__(self, references: References, find: Find | None = None, name: str = "given"):
        super().__init__(references)
        self._find = find or _spacy()
        self._name = name if find else f"spacy-{_MODEL}"

    @cached_property
    def _theirs(self) -> list[Counter[tuple[str, str]]]:
        return [Counter(found) for found in self._find([texts[0] for texts in self.references.captions])]

    @cached_property
    def _known_names(self) -> frozenset[str] | None:
        """The names of people in the training captions; None where those are unknown."""
        training = self.references.training
        if not training:
            return None
        return frozenset(text for found in self._find(training) for text, label in found if label == "PERSON")

    def statistics(self, candidates: Candidates) -> Floats:
        rows = np.zeros((len(candidates.captions), 3 * len(_KINDS) + 2))
        for image, (found, theirs) in enumerate(zip(self._find(candidates.captions), self._theirs, strict=True)):
            mine = Counter(found)
            for k, kind in enumerate(_KINDS):
                for column, some in enumerate((mine & theirs, mine, theirs)):
                    rows[image, 3 * k + column] = sum(n for (_, label), n in some.items() if kind in ("", label))
            if self._known_names is not None:
                for column, some in enumerate((mine & theirs, theirs)):
                    rows[image, 3 * len(_KINDS) + column] = sum(
                        n for (text, label), n in some.items() if label == "PERSON" and text not in self._known_names
                    )
        return rows

    def reduce(self, sums: Floats) -> Floats:
        def share(above: Floats, below: Floats) -> Floats:
            value: Floats = above / np.maximum(below, 1)  # nothing found, or nothing to find: 0, as the protocol has it
            return value

        right, mine, theirs = (sums[..., column : 3 * len(_KINDS) : 3] for column in range(3))
        precision, recall = share(right, mine), share(right, theirs)
        f1 = 2 * right[..., 0] / np.maximum(mine[..., 0] + theirs[..., 0], 1)
        parts = [precision[..., 0], recall[..., 0], f1]
        for k in range(1, len(_KINDS)):
            parts += [precision[..., k], recall[..., k]]
        rare = share(sums[..., -2], sums[..., -1])
        parts.append(np.full_like(rare, np.nan) if self._known_names is None else rare)
        return np.stack(parts, axis=-1)

    def facts(self) -> dict[str, str]:
        return {"ner": self._name, "match": "text+label", "refs_by": "first"}


@cache
def _spacy() -> Find:
    """Finds entities by spaCy.

    Raises:
        ScoreError: spaCy or its model is not installed.
    """
    try:
        spacy = importlib.import_module("spacy")
    except ImportError as error:
        raise ScoreError(
            "Entities need spaCy.", 'Install it: pip install "cutline[news]", or give entities.'
        ) from error
    try:
        model = spacy.load(_MODEL, disable=["tagger", "parser", "lemmatizer", "attribute_ruler"])
    except OSError as error:
        raise ScoreError(
            f"spaCy's model {_MODEL} is not installed.", f"Get it: python -m spacy download {_MODEL}"
        ) from error

    def find(captions: Sequence[str]) -> list[list[tuple[str, str]]]:
        return [[(entity.text, entity.label_) for entity in text.ents] for text in model.pipe(captions)]

    return find
