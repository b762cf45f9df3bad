"""Verdicts claim no more than the intervals do; numbers read as people write them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from cutline.core.records import Score, ScoreInfo
from cutline.metrics.baselines import HUMAN
from cutline.metrics.difference import Difference
from cutline.metrics.evaluation import Evaluation
from cutline.report import words


def score(value: float, low: float, high: float, metric: str = "cider", lower_is_better: bool = False) -> Score:
    info = replace(words.describe(metric), higher_is_better=not lower_is_better)
    return Score(metric=metric, value=value, low=low, high=high, n=100, signature="s", info=info)


def against(baseline: str, gain: float, p: float, lower_is_better: bool = False) -> Difference:
    change = -gain if lower_is_better else gain
    return Difference(
        metric="cider", a=baseline, b="predictions", value_a=0.5 - change, value_b=0.5, difference=change,
        low=change - 0.1, high=change + 0.1, p_bootstrap=p, p_randomisation=p, wins=1, ties=1, losses=1,
        signature="s", info=ScoreInfo("cider", "CIDEr-D", "", higher_is_better=not lower_is_better),
    )  # fmt: skip


@pytest.mark.parametrize("lower_is_better", [False, True])
@pytest.mark.parametrize(
    ("constant", "shuffled", "said"),
    [
        ((0.4, 0.001), (0.5, 0.001), "clearly better than captions that don’t know the image (paired test, p < 0.002)"),
        ((0.4, 0.02), (0.5, 0.001), "clearly better than captions that don’t know the image (paired test, p = 0.020)"),
        ((0.4, 0.13), (0.5, 0.001), "better than one constant caption, but that may be chance (paired test, p = 0.13)"),
        ((0.4, 0.001), (-0.1, 0.3), "no better than captions of another image"),
    ],
)
def test_summary(constant, shuffled, said: str, lower_is_better: bool) -> None:
    given = {"one constant caption": constant, "captions of another image": shuffled}
    evaluation = Evaluation(
        scores={"cider": score(0.5, 0.05, 0.95)},  # wide: what the images share is no matter for a paired test
        baselines={
            "one constant caption": {"cider": score(0.1, 0.08, 0.12)},
            "captions of another image": {"cider": score(0.05, 0.04, 0.06)},
            HUMAN: {"cider": score(0.9, 0.8, 1.0)},
        },
        differences={name: {"cider": against(name, gain, p, lower_is_better)} for name, (gain, p) in given.items()},
    )
    sentence = words.summary(evaluation, "cider", "test")
    assert sentence.endswith(f"{said}.")
    assert "0.100 for one constant caption and 0.050 for captions of another image" in sentence
    assert "0.900" not in sentence
    assert "0.900" in words.human(evaluation, "cider")


def test_summary_without_a_test() -> None:
    beside = {"one constant caption": {"cider": score(0.1, 0.08, 0.12)}}
    evaluation = Evaluation(scores={"cider": score(0.5, 0.5, 0.5)}, baselines=beside)
    assert words.summary(evaluation, "cider", "").endswith("better than one constant caption; no test was made.")


def test_summary_without_a_test_where_lower_is_better() -> None:
    beside = {"one constant caption": {"empty": score(0.1, 0.1, 0.1, "empty")}}
    evaluation = Evaluation(scores={"empty": score(0.05, 0.05, 0.05, "empty", True)}, baselines=beside)
    assert words.summary(evaluation, "empty", "").endswith("better than one constant caption; no test was made.")


def test_summary_without_baselines() -> None:
    sentence = words.summary(Evaluation(scores={"cider": score(0.5, 0.5, 0.5)}), "cider", "")
    assert sentence == "On 100 images the captions reach CIDEr-D 0.500; there is no baseline to compare it with."


def test_the_score_that_speaks_for_a_run() -> None:
    scores = {name: score(0.5, 0.4, 0.6, name) for name in ("length", "bleu4", "cider")}
    evaluation = Evaluation(scores=scores)
    assert words.main_score(evaluation, {"train": {"metric": "bleu4"}}) == "bleu4"
    assert words.main_score(evaluation, {"train": {"metric": "spice"}}) == "cider"
    assert words.main_score(evaluation, {}) == "cider"
    assert words.main_score(Evaluation(scores={}), {}) is None


def test_problems() -> None:
    assert words.problems({"images": 9}) == "No image failed."
    assert words.problems({"failed": 2, "empty": 2}) == "2 images failed."
    assert words.problems({"failed": 1, "missing": 3, "empty": 5, "unfinished": 1}) == (
        "1 image failed, 3 images have no prediction, 1 caption is empty and 1 caption was cut off at the length limit."
    )


def test_numbers() -> None:
    cider, empty, length = map(words.describe, ("cider", "empty", "length"))
    assert words.number(cider, 0.5) == "0.500"
    assert words.number(cider, math.nan) == words.number(cider, None) == "–"
    assert words.number(empty, 0.021) == "2.1\u00a0%"
    assert words.number(length, 9.27) == "9.3"
    assert words.interval(score(0.02, 0.01, 0.03, "empty")) == "1.0–3.0\u00a0%"
    assert [words.duration(s) for s in (0.25, 8, 59.7, 133, 3905)] == [
        "0.2 s", "8.0 s", "1 min 00 s", "2 min 13 s", "1 h 05 min"
    ]  # fmt: skip
