"""Entity scores: with entities given by a function or a file, and found by a real spaCy pipeline."""

import importlib.util
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from cutline.core.errors import ScoreError
from cutline.metrics.base import References
from cutline.metrics.entities import Entities
from cutline.metrics.evaluation import evaluate
from cutline.metrics.scorer import Scorer, score
from cutline.metrics.settings import ScoreSettings

PEOPLE, PLACES = ("Ann Lee", "Bob", "Cleo"), ("Paris", "Rome")
has_spacy = importlib.util.find_spec("spacy") is not None


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


def test_a_name_said_twice_is_right_twice_when_the_reference_says_it_once() -> None:
    def every(captions: Sequence[str]) -> list[list[tuple[str, str]]]:
        return [[(word, "PERSON") for word in caption.split() if word.istitle()] for caption in captions]

    found = score({"1": "Ann and Ann met Bob"}, {"1": ["Ann slept"]}, [partial(Entities, find=every)], resamples=0)
    assert found["entity_precision"].value == pytest.approx(2 / 3)
    assert found["entity_recall"].value == 1
    assert found["entity_f1"].value == pytest.approx(0.8)


def test_rare_names_are_those_that_training_never_had() -> None:
    references = References(REFERENCES, training=["Bob laughs"])
    found = Scorer(references, [partial(Entities, find=find)], resamples=0).score(PREDICTIONS)
    assert found["rare_name_precision"].value == 1  # Ann Lee and Cleo
    assert found["rare_name_recall"].value == 1
    found = Scorer(references, [partial(Entities, find=find)], resamples=0).score({**PREDICTIONS, "2": "Ann Lee"})
    assert found["rare_name_precision"].value == pytest.approx(1 / 2)
    assert found["rare_name_recall"].value == pytest.approx(1 / 2)


def write_given(path: Path, captions: Sequence[str]) -> Path:
    rows = [{"text": text, "entities": entities} for text, entities in zip(captions, find(captions), strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_entities_from_a_file(tmp_path: Path) -> None:
    captions = [text for texts in REFERENCES.values() for text in texts] + list(PREDICTIONS.values())
    path = write_given(tmp_path / "entities.jsonl", captions)
    settings = ScoreSettings.model_validate({"metrics": ["entities"], "entities": {"given": str(path)}})
    found = evaluate(PREDICTIONS, REFERENCES, training_captions=["a caption without entities"], settings=settings)
    assert found.scores["entity_f1"].value == pytest.approx(3 / 5)
    assert "ner:given-entities.jsonl" in found.scores["entity_f1"].signature
    assert "rare_name_recall" not in found.scores  # the training captions' entities are not known
    assert any("could not be scored" in text for text in found.warnings)  # the constant caption's neither
    options = {"entities": {"given": str(write_given(path, captions[:-1]))}}
    with pytest.raises(ScoreError, match=r"no entities of 1 captions, such as 'Bob'"):
        score(PREDICTIONS, REFERENCES, ["entities"], options=options)
    path.write_text("{")
    with pytest.raises(ScoreError, match=r"entities\.jsonl can't be read"):
        score(PREDICTIONS, REFERENCES, ["entities"], options=options)


@pytest.mark.skipif(has_spacy, reason="spaCy is installed here")
def test_what_is_missing_is_said() -> None:
    with pytest.raises(ScoreError, match="need spaCy"):
        score(PREDICTIONS, REFERENCES, ["entity_f1"])


@pytest.mark.skipif(not has_spacy, reason="needs spaCy (cutline[news])")
def test_entities_found_by_a_spacy_pipeline(tmp_path: Path) -> None:
    spacy = importlib.import_module("spacy")
    model = spacy.blank("en")
    patterns = [{"label": "PERSON", "pattern": name} for name in PEOPLE]
    model.add_pipe("entity_ruler").add_patterns([*patterns, *({"label": "GPE", "pattern": name} for name in PLACES)])
    model.to_disk(tmp_path / "rules")
    options = {"entities": {"model": str(tmp_path / "rules")}}
    found = score(PREDICTIONS, REFERENCES, ["entities"], options=options)
    given = score(PREDICTIONS, REFERENCES, [partial(Entities, find=find)])
    assert {name: each.value for name, each in found.items()} == {name: each.value for name, each in given.items()}
    assert "ner:spacy-rules" in found["entity_f1"].signature
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(ScoreError, match="no component that finds entities"):
        score(PREDICTIONS, REFERENCES, ["entities"], options={"entities": {"model": str(tmp_path / "blank")}})
    with pytest.raises(ScoreError, match=r"pipeline no_such_model is not installed.*spacy download"):
        score(PREDICTIONS, REFERENCES, ["entities"], options={"entities": {"model": "no_such_model"}})
    tiny = score(PREDICTIONS, REFERENCES, ["entities"], options={"entities": {"model": "tiny"}})
    assert tiny["entity_precision"].value == 1  # a rule that finds Ann Lee
