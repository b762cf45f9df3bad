"""METEOR: stems, tokens and the search are tested on made-up data everywhere, scores where METEOR's is installed."""

import gzip
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from cutline.core.errors import ScoreError
from cutline.metrics.base import References
from cutline.metrics.meteor import Meteor
from cutline.metrics.scorer import Scorer, score
from cutline.metrics.text import meteor_counts, meteor_data, meteor_search
from cutline.metrics.text.meteor_text import normalise, prefixes
from cutline.metrics.text.meteor_words import Lexicon
from cutline.metrics.text.porter2 import stem
from cutline.metrics.text.tokenize import Pretokenized
from tests.metrics import reference_scores

ORACLE = json.loads(Path(__file__).with_name("meteor_oracle.json").read_text(encoding="utf-8"))
with_data = pytest.mark.skipif(
    not meteor_data.is_available(), reason="METEOR's data is not installed (cutline[meteor])"
)


def made_up(folder: Path, paraphrases: list[tuple[str, str]]) -> meteor_data.MeteorData:
    """Data with a few words, so that what is done with it can be tested where METEOR's is not installed."""
    table = folder / "paraphrases.gz"
    with gzip.open(table, "wt", encoding="utf-8") as file:
        file.writelines(f"0.5\n{one}\n{other}\n" for one, other in paraphrases)
    return meteor_data.MeteorData(
        function_words=frozenset({"the", "is", "a", "in", "on", "of"}),
        prefixes=frozenset(),
        synsets={"sofa": "7 9", "couch": "3 9", "mouse": "4", "rodent": "4 5", "box": "8", "carton": "8"},
        exceptions={"mice": ("mouse",)},
        paraphrases=meteor_data._paraphrases(table),
    )


@pytest.fixture
def own_data(tmp_path, monkeypatch):
    monkeypatch.setenv("CUTLINE_CACHE", str(tmp_path / "cache"))
    data = made_up(tmp_path, [("in front of", "before"), ("before", "in front of"), ("is red", "is painted")])
    monkeypatch.setattr(meteor_data, "load", lambda: data)
    return data


def test_stems_equal_the_older_porter2():
    assert {word: stem(word) for word in ORACLE["stems"]} == ORACLE["stems"]


def test_tokens_are_normalised_as_by_meteor():
    known = prefixes("# comment\nmr\netc\nno #NUMERIC_ONLY#\n")
    assert {text: normalise(text, known) for text in ORACLE["normalised"]} == ORACLE["normalised"]


def alignment(data: meteor_data.MeteorData, candidate: str, reference: str, beam: int) -> list[list[int]]:
    lexicon = Lexicon(data)
    mine, theirs = (lexicon.encode(lexicon.words([text])) for text in (candidate, reference))
    phrases, other_phrases, first, others = lexicon.paraphrases(mine, theirs)
    rows = np.zeros((1, meteor_counts.COLUMNS), np.int32)
    chosen = np.full((5, len(reference.split())), -1, np.int32)
    meteor_search.align(
        np.zeros((1, 2), np.int64),
        (mine.first, mine.words, mine.phrase_first, phrases),
        (theirs.first, theirs.words, theirs.phrase_first, other_phrases),
        lexicon.stems, lexicon.synset_first, lexicon.synsets, lexicon.function, first, others,
        meteor_search.GAIN, beam, rows, chosen,
    )  # fmt: skip
    return [[int(place), int(other)] for place, other in chosen[:2].T if place >= 0]


def test_alignments_equal_meteors(own_data):
    wrong = [
        case
        for case in ORACLE["cases"]
        if alignment(own_data, case["candidate"], case["reference"], case["beam"]) != case["alignment"]
    ]
    assert not wrong


def test_scores_of_synonyms_and_stems_equal_meteors(own_data):
    candidates = {"1": "the sofa is red", "2": "grass runs", "3": ""}
    references = {"1": ["nothing", "the couch is red"], "2": ["a cat runs in grass"], "3": ["a dog"]}
    found = score(candidates, references, ["meteor"], resamples=0, tokenizer=Pretokenized())["meteor"]
    assert found.per_image == pytest.approx([0.925, 0.23414634146341462, 0], abs=1e-12)
    # the set's score is that of the sums: a perfect caption adds no chunk, an empty one its references' words
    two = score(
        {name: candidates[name] for name in "12"},
        {name: references[name] for name in "12"},
        ["meteor"],
        resamples=0,
        tokenizer=Pretokenized(),
    )["meteor"]
    assert two.value == pytest.approx(0.38060042977795855, abs=1e-12)
    assert found.value < two.value


def statistics(candidate: str, reference: str) -> list[int]:
    metric = Meteor(References({"1": [reference]}, Pretokenized()))
    return metric.statistics(metric.references.candidates([candidate]))[0].astype(int).tolist()


@pytest.mark.parametrize(
    ("candidate", "reference", "stage"),
    [
        ("a dog", "a cat", None),
        ("dogs bark", "cats barking", 1),
        ("a mice", "the rodent", 2),  # an exception's base
        ("two boxes", "one carton", 2),  # a rule's base
        ("his dog before him", "cats in front of her", 3),
        ("cats in front of her", "his dog before him", 3),  # listed one way only would do, too
    ],
)
def test_each_stage_finds_its_matches(own_data, candidate, reference, stage):
    stages = np.array(statistics(candidate, reference)[4:20]).reshape(4, 4)
    found = {int(row) for row in np.flatnonzero(stages.any(axis=1))}
    assert found - {0} == ({stage} if stage is not None else set())


def test_without_the_data_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    meteor_data.load.cache_clear()
    with pytest.raises(ScoreError, match=r"METEOR needs the data of the package pycocoevalcap"):
        score({"1": "a dog"}, {"1": ["a dog"]}, ["meteor"])
    assert score({"1": "a dog"}, {"1": ["a dog"]}, ["bleu"], resamples=0)["bleu1"].value == pytest.approx(1)


def test_the_index_is_built_once(own_data, tmp_path, monkeypatch):
    def refuse(path: Path, folder: Path) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(meteor_data, "_build", refuse)
    again = meteor_data._paraphrases(tmp_path / "paraphrases.gz")
    assert len(again.hashes) == 4
    assert again.words == own_data.paraphrases.words


def test_the_interval_comes_from_summed_counts(own_data):
    references = {str(n): ["the couch is red"] for n in range(40)}
    candidates = {str(n): "the sofa is red" if n % 2 else "a dog on the couch" for n in range(40)}
    found = Scorer(references, ["meteor"], resamples=200, tokenizer=Pretokenized()).score(candidates)["meteor"]
    assert found.low < found.value < found.high
    assert "meteor:1.5-en-norm" in found.signature


@with_data
def test_own_cases_equal_the_reference():
    own = reference_scores.own()
    found = score(own["candidate_tokens"], own["reference_tokens"], ["meteor"], resamples=0, tokenizer=Pretokenized())[
        "meteor"
    ]
    assert found.value == pytest.approx(own["scores"]["meteor"], abs=1e-12)
    np.testing.assert_allclose(found.per_image, own["per_image"]["meteor"], rtol=0, atol=1e-12)


@with_data
@pytest.mark.parametrize("name", reference_scores.SETS)
def test_large_sets_equal_the_reference(name):
    if not meteor_search.COMPILED:
        pytest.skip("takes minutes without numba")
    known = reference_scores.shared(name)
    candidates = {image: texts[0] for image, texts in known["res_tok"].items()}
    found = score(candidates, known["gts_tok"], ["meteor"], resamples=0, tokenizer=Pretokenized())["meteor"]
    assert found.value == pytest.approx(known["scores"]["METEOR"], abs=1e-9)
    np.testing.assert_allclose(found.per_image, known["per_image"]["METEOR"], rtol=0, atol=1e-9)
