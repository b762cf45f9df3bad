"""Named entities as the news protocol scores them: exact match of text and label, counted over all captions together.

Tran, Mathews and Xie 2020, "Transform and Tell": precision and recall of the entities of the captions against those of
the references (the first reference of each image), for all labels, and for PERSON, ORG, GPE and DATE by themselves. As
there, an entity counts as correct when the other caption has it, however often each repeats it. Rare
names are PERSON entities that no training caption has (the authors counted single proper nouns, by their part of
speech); they have a precision and recall of their own.

By default spaCy's ``en_core_web_lg`` finds them (extra ``news``); any pipeline with a component that sets ``doc.ents``
will do (``model``, a name or a folder). Entities that are already known are read from a file (``given``), or come from
a function:

    score(predictions, references, ["news", lambda r: Entities(r, find=my_find)])

The file has a line for each different caption, of predictions, references and (for rare names) the training set:
``{"text": "Ann Lee in Paris", "entities": [["Ann Lee", "PERSON"], ["Paris", "GPE"]]}``.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from cutline.core.config import Section
from cutline.core.errors import ScoreError
from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, Metric, References, some

#: The text and the label of each entity of each caption.
Find = Callable[[Sequence[str]], list[list[tuple[str, str]]]]

_KINDS = ("", "PERSON", "ORG", "GPE", "DATE")


class EntitiesSettings(Section):
    model: str = Field("en_core_web_lg", description="spaCy pipeline that finds entities, a package or a folder")
    given: str | None = Field(
        None, description="file with the entities of each caption, one JSON line each; no model runs then"
    )


class Entities(Metric):
    """Statistics an image, for each kind and for rare names: those of the caption that are right, those of the caption,

    those of the reference that the caption has, those of the reference.

    Args:
        find: finds the entities of captions; what the settings say when None.
        name: what finds them, for the signature.
    """

    settings_type = EntitiesSettings
    scores = (
        ScoreInfo(
            "entity_precision",
            "Entity precision",
            "Share of the captions' named entities that the reference has, with the same label.",
            unit="share",
        ),
        ScoreInfo(
            "entity_recall",
            "Entity recall",
            "Share of the references' named entities that the caption has, with the same label.",
            unit="share",
        ),
        ScoreInfo("entity_f1", "Entity F1", "Harmonic mean of entity precision and entity recall.", unit="share"),
        ScoreInfo(
            "person_precision",
            "Person precision",
            "Share of the captions' names of people that the reference has.",
            unit="share",
        ),
        ScoreInfo(
            "person_recall",
            "Person recall",
            "Share of the references' names of people that the caption has.",
            unit="share",
        ),
        ScoreInfo(
            "org_precision",
            "Organisation precision",
            "Share of the captions' names of organisations that the reference has.",
            unit="share",
        ),
        ScoreInfo(
            "org_recall",
            "Organisation recall",
            "Share of the references' names of organisations that the caption has.",
            unit="share",
        ),
        ScoreInfo(
            "gpe_precision",
            "Place precision",
            "Share of the captions' names of countries, cities and states that the reference has.",
            unit="share",
        ),
        ScoreInfo(
            "gpe_recall",
            "Place recall",
            "Share of the references' names of countries, cities and states that the caption has.",
            unit="share",
        ),
        ScoreInfo(
            "date_precision", "Date precision", "Share of the captions' dates that the reference has.", unit="share"
        ),
        ScoreInfo("date_recall", "Date recall", "Share of the references' dates that the caption has.", unit="share"),
        ScoreInfo(
            "rare_name_precision",
            "Rare name precision",
            "Share of the captions' names of people unseen in training captions that the reference has.",
            unit="share",
        ),
        ScoreInfo(
            "rare_name_recall",
            "Rare name recall",
            "Share of the references' names of people unseen in training captions that the caption has.",
            unit="share",
        ),
    )
    version = 2  # 1 matched each mention once
    unknown: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("rare_name_precision", "rare_name_recall"),
        "the training captions or their entities are unknown, and with them which names are rare",
    )
    uses_tokens = False

    def __init__(
        self,
        references: References,
        settings: EntitiesSettings | None = None,
        find: Find | None = None,
        name: str = "given",
    ):
        super().__init__(references)
        self._find, self._name = (find, name) if find else _finder(settings or EntitiesSettings())

    @classmethod
    def check(cls, settings: EntitiesSettings) -> None:
        _finder(settings)

    @cached_property
    def _theirs(self) -> list[list[tuple[str, str]]]:
        return self._find([texts[0] for texts in self.references.captions])

    @cached_property
    def _known_names(self) -> frozenset[str] | None:
        """The names of people in the training captions; None where those are unknown."""
        training = self.references.training
        if not training:
            return None
        try:
            found = self._find(training)
        except _NotGiven:  # the file is about the captions to score; which names are rare stays unknown
            return None
        return frozenset(text for entities in found for text, label in entities if label == "PERSON")

    def statistics(self, candidates: Candidates) -> Floats:
        rows = np.zeros((len(candidates.captions), 4 * (len(_KINDS) + 1)))
        known = self._known_names
        for image, (mine, theirs) in enumerate(zip(self._find(candidates.captions), self._theirs, strict=True)):
            for column, (found, others) in enumerate(((mine, set(theirs)), (theirs, set(mine)))):
                for text, label in found:
                    is_rare = known is not None and label == "PERSON" and text not in known
                    for k in (0, *([_KINDS.index(label)] if label in _KINDS else ()), *([-1] if is_rare else ())):
                        rows[image, 4 * k + 2 * column] += (text, label) in others
                        rows[image, 4 * k + 2 * column + 1] += 1
        return rows

    def reduce(self, sums: Floats) -> Floats:
        right, all_ = sums[..., 0::2], sums[..., 1::2]
        # nothing found, or nothing to find: 0, as the protocol has it; [..., precision and recall of each kind]
        shares: Floats = right / np.maximum(all_, 1)
        precision, recall = shares[..., 0], shares[..., 1]
        both = precision + recall
        f1 = 2 * precision * recall / np.where(both > 0, both, 1)
        rare = shares[..., -2:] if self._known_names is not None else np.full_like(shares[..., -2:], np.nan)
        return np.concatenate([shares[..., :2], f1[..., None], shares[..., 2:-2], rare], axis=-1)

    def facts(self) -> dict[str, str]:
        return {"ner": self._name, "match": "text+label", "refs_by": "first"}


def _finder(settings: EntitiesSettings) -> tuple[Find, str]:
    """What finds entities, and its name."""
    if settings.given is not None:
        return _Given(Path(settings.given)), f"given-{Path(settings.given).name}"
    return _spacy(settings.model)


class _NotGiven(ScoreError):
    pass


class _Given:
    """Entities from a file.

    Raises:
        ScoreError: the file can't be read, or has no line for a caption.
    """

    def __init__(self, path: Path):
        self.path = path
        self._known: dict[str, list[tuple[str, str]]] = {}
        try:
            for line in path.read_text(encoding="utf-8-sig").splitlines():
                if line.strip():
                    row = json.loads(line)
                    self._known[row["text"]] = [(str(text), str(label)) for text, label in row["entities"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ScoreError(
                f"entities: {path} can't be read: {type(error).__name__}: {error}.",
                'Give a line for each caption: {"text": …, "entities": [["Ann Lee", "PERSON"], …]}.',
            ) from error

    def __call__(self, captions: Sequence[str]) -> list[list[tuple[str, str]]]:
        missing = list(dict.fromkeys(text for text in captions if text.strip() and text not in self._known))
        if missing:
            raise _NotGiven(
                f"{self.path} has no entities of {len(missing)} captions, such as {some(missing, 1)!r}.",
                'Add a line for each, with "entities": [] where there are none.',
            )
        return [self._known.get(text, []) for text in captions]


@cache
def _spacy(name: str) -> tuple[Find, str]:
    """A spaCy pipeline as a function, and its name and version; what it found in a caption is cached.

    Raises:
        ScoreError: spaCy or the pipeline is not installed, or finds no entities.
    """
    try:
        spacy = importlib.import_module("spacy")
    except ImportError as error:
        raise ScoreError(
            "Entities need spaCy.", 'Install it: pip install "cutline[news]", or give entities (entities.given).'
        ) from error
    if name == "tiny":  # a rehearsal: no download
        model: Any = spacy.blank("en")
        model.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Ann Lee"}])
    else:
        try:
            model = spacy.load(name, exclude=["tagger", "parser", "lemmatizer", "attribute_ruler"])
        except OSError as error:
            raise ScoreError(
                f"spaCy's pipeline {name} is not installed.",
                f"Get it (python -m spacy download {name}), or choose another ([score.entities] model).",
            ) from error
    if not {"ner", "entity_ruler", "span_ruler"} & set(model.pipe_names):
        raise ScoreError(
            f"spaCy's pipeline {name} has no component that finds entities.", "Choose a pipeline with ner."
        )
    remembered: dict[str, list[tuple[str, str]]] = {}

    def find(captions: Sequence[str]) -> list[list[tuple[str, str]]]:
        new = list(dict.fromkeys(text for text in captions if text not in remembered))
        for text, found in zip(new, model.pipe(new), strict=True):
            remembered[text] = [(entity.text, entity.label_) for entity in found.ents]
        return [remembered[text] for text in captions]

    return find, f"spacy-{Path(name).name}-{model.meta.get('version', '')}".rstrip("-")
