"""The protocols beside COCO's, against numbers of nltk 3.9 and rouge_score 0.1.2 on our own cases."""

import json
from pathlib import Path

import numpy as np
import pytest

from cutline.core.errors import ScoreWarning
from cutline.metrics.evaluation import evaluate
from cutline.metrics.scorer import score
from cutline.metrics.settings import ScoreSettings
from cutline.metrics.text.tokenize import NewsTokenizer
from tests.metrics import reference_scores

KNOWN = json.loads(Path(__file__).with_name("other_oracle.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("tokens", "name"), [(tokens, name) for tokens in KNOWN for name in KNOWN[tokens]])
def test_equal_to_the_packages(tokens: str, name: str) -> None:
    own = reference_scores.own()
    options = {"bleu4_nltk": {"tokens": tokens}}
    found = score(own["candidates"], own["references"], [name], resamples=0, options=options)[name]
    np.testing.assert_allclose(found.per_image, KNOWN[tokens][name], atol=1e-12)


def test_the_tokens_stand_in_the_signature() -> None:
    captions = {"a": "A dog."}
    for tokens, said in (("ptb", "|tok:ptb-coco-"), ("split", "|tok:split|case:lower|")):
        options = {"bleu4_nltk": {"tokens": tokens}}
        found = score(captions, {"a": ["a dog"]}, ["bleu4_nltk_smooth1"], resamples=0, options=options)
        assert said in found["bleu4_nltk_smooth1"].signature


def test_the_table_of_the_docs() -> None:
    """COCO's own example results, as docs/metrics.md has them."""
    captions = reference_scores.shared("official_fakecap")
    predictions = {name: texts[0] for name, texts in captions["res_raw"].items()}
    expected = {
        "bleu4": 0.1908290438, "rouge_l": 0.3962526936, "cider": 0.5997905185, "cider_original": 0.7110599515,
        "rougeL_f1": 0.3941, "bleu4_nltk_smooth1": 0.1625, "bleu4_nltk_smooth2": 0.2840, "bleu4_news": 0.0642,
        "rouge_l_news": 0.2542, "cider_news": 0.6414,
    }  # fmt: skip
    found = score(predictions, captions["gts_raw"], list(expected), resamples=0)
    for name, value in expected.items():
        digits = len(str(value)) - 2
        assert found[name].value == pytest.approx(value, abs=0.6 * 10**-digits), name


def test_repetition_counts_ngrams_that_came_before() -> None:
    found = score({"a": "x y x y", "b": "p q"}, {"a": ["x"], "b": ["x"]}, ["repetition"], resamples=0)
    assert [found[f"seq_rep{k}"].value for k in (1, 2, 3, 4)] == pytest.approx([2 / 6, 1 / 4, 0, 0])


def test_novelty_and_echo_need_to_know_what_was_there() -> None:
    references = {"a": ["x"], "b": ["y"], "c": ["z"]}
    predictions = {"a": "A dog.", "b": "the cat in Paris", "c": "new"}
    with pytest.warns(ScoreWarning) as said:
        assert score(predictions, references, ["novelty", "prompt_echo"], resamples=0) == {}
    assert [str(one.message).split(":")[0] for one in said] == ["novel was left out", "prompt_echo was left out"]
    unknown = evaluate(predictions, references, settings=ScoreSettings(metrics=("novelty", "length"), resamples=0))
    assert [text for text in unknown.warnings if "left out: the training captions are unknown" in text]
    found = evaluate(
        predictions,
        references,
        training_captions=["a dog", "a tree"],
        contexts={"a": "London", "b": "Paris!"},
        settings=ScoreSettings(metrics=("novelty", "prompt_echo"), resamples=0),
    ).scores
    assert found["novel"].value == pytest.approx(2 / 3)
    empty = evaluate(
        predictions | {"c": ""}, references, ["a dog"], settings=ScoreSettings(metrics=("novelty",), resamples=0)
    )
    assert empty.scores["novel"].value == pytest.approx(1 / 3)
    assert found["prompt_echo"].value == pytest.approx(1 / 2)


def test_news_words_keep_their_case() -> None:
    assert NewsTokenizer()(["Mr. Smith's well-known dog, here"]) == ["Mr Smiths wellknown dog here"]
    found = score({"a": "The Dog"}, {"a": ["the dog."]}, ["exact_match"], resamples=0, tokenizer=NewsTokenizer())
    assert found["exact_match"].value == 0
    assert "tok:news-1|case:kept" in found["exact_match"].signature
