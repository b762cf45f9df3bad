"""distinct-n and self-BLEU against obvious computations; the news protocol against COCO's scorers."""

import re

import pytest

from cutline.metrics.base import References
from cutline.metrics.scorer import Scorer, score
from cutline.metrics.text.tokenize import Pretokenized

CAPTIONS = {"1": "A dog runs.", "2": "a dog runs fast", "3": "two cats", "4": ""}
REFERENCES = {key: ["something"] for key in CAPTIONS}


def test_distinct_counts_different_ngrams_over_all_captions() -> None:
    found = score(CAPTIONS, REFERENCES, ["distinct"])
    words = ["a", "dog", "runs", "a", "dog", "runs", "fast", "two", "cats"]
    pairs = ["a dog", "dog runs", "a dog", "dog runs", "runs fast", "two cats"]
    assert found["distinct1"].value == pytest.approx(len(set(words)) / len(words))
    assert found["distinct2"].value == pytest.approx(len(set(pairs)) / len(pairs))
    assert found["vocabulary"].value == pytest.approx(len(set(words)))
    assert sum(found["vocabulary"].per_image) == pytest.approx(6)
    for name in ("distinct1", "distinct2"):
        assert found[name].low <= found[name].value <= found[name].high


def test_self_bleu_is_bleu_of_each_caption_against_the_others() -> None:
    several = {
        "1": ["a dog runs on the grass", "a dog runs on the lawn", "a brown dog runs on the grass"],
        "2": ["two cats sleep on a bed", "two cats sleep on a bed"],
        "3": ["one caption only"],
    }
    found = score(several, {key: ["something"] for key in several}, ["self_bleu", "bleu1"])
    references, captions = {}, {}
    for name, texts in several.items():
        for place, text in enumerate(texts if len(texts) > 1 else ()):
            references[f"{name}/{place}"] = texts[:place] + texts[place + 1 :]
            captions[f"{name}/{place}"] = text
    expected = score(captions, references, ["bleu4"])["bleu4"].value
    assert 0 < expected < 1
    assert found["self_bleu4"].value == pytest.approx(expected, abs=1e-12)
    assert found["self_bleu4"].per_image[1] == pytest.approx(1, abs=1e-6)
    assert found["bleu1"].n == 3  # the first caption of each image
    same = {name: texts[0] for name, texts in several.items()}
    assert "self_bleu4" not in score(same, {key: ["something"] for key in several}, ["self_bleu"])


def test_the_news_protocol_is_cocos_scorers_on_other_words() -> None:
    references = {"1": ["Mr. Obama, in Washington.", "not looked at"], "2": ["A strike at Boeing's plant"]}
    predictions = {"1": "President Obama in Washington", "2": "a strike at Boeings plant!"}
    found = score(predictions, references, ["news"])

    def plain(text: str) -> str:
        return " ".join(re.sub(r"[^\w\s]", "", text).split())

    first = {name: [plain(texts[0])] for name, texts in references.items()}
    scorer = Scorer(References(first, Pretokenized()), ["bleu", "rouge_l", "cider"], resamples=0)
    expected = scorer.score({name: plain(text) for name, text in predictions.items()})
    for name, other in expected.items():
        assert found[f"{name}_news"].value == pytest.approx(other.value, abs=1e-12)
        assert found[f"{name}_news"].per_image == pytest.approx(other.per_image, abs=1e-12)
    assert "tok:news-1|case:kept|refs_by:first" in found["cider_news"].signature
