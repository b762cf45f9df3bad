"""Entity scores, with entities given by a function."""

import importlib.util
from collections.abc import Sequence
from functools import partial

import pytest

from cutline.errors import ScoreError
from cutline.metrics.base import References
from cutline.metrics.entities import Entities
from cutline.metrics.scorer import Scorer, score

PEOPLE, PLACES = ("Ann Lee", "Bob", "Cleo"), ("Paris", "Rome")


def find(captions: Sequence[str]) -> list[list[tuple[str, str]]]:
    labels = [(name, "PERSON") for name in PEOPLE] + [(name, "GPE") for name in PLACES]
    return [[found for found in labels if found[0] in caption] for caption in captions]


REFERENCES = {"1": ["Ann Lee in Paris"], "2": ["Bob and Cleo in Rome"], "3": ["A dog"]}
PREDICTIONS = {"1": "Ann Lee in Rome", "2": "Cleo in Rome", "3": "Bob"}


def test_entities_are_counted_over_all_captions() -> None:
    found = score(PREDICTIONS, REFERENCES, [partial(Entities, find=find, name="test")])
    assert found["entity_precision"].value == pytest.approx(3 / 5)
    assert found["entity_recall"].value == pytest.approx(3 / 5)
    assert found["entity_f1"].value == pytest.approx(3 / 5)
    assert found["person_precision"].value == pytest.approx(2 / 3)
    assert found["gpe_recall"].value == pytest.approx(1 / 2)
    assert found["date_recall"].value == 0
    assert "rare_name_recall" not in found  # without training captions nobody knows which names are rare
    assert "ner:test" in found["entity_f1"].signature


def test_rare_names_are_those_that_training_never_had() -> None:
    references = References(REFERENCES, training=["Bob laughs", "Ann Lee"])
    found = Scorer(references, [partial(Entities, find=find)], resamples=0).score(PREDICTIONS)
    assert found["rare_name_recall"].value == 1  # Cleo


@pytest.mark.skipif(importlib.util.find_spec("spacy") is not None, reason="spaCy is installed here")
def test_what_is_missing_is_said() -> None:
    with pytest.raises(ScoreError, match="need spaCy"):
        score(PREDICTIONS, REFERENCES, ["entity_f1"])
