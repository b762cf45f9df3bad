"""Metrics of one's own: an object in one call, and what is wrong with one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cutline
from cutline.cli.tables import comparison_table, scores_table
from cutline.core.errors import ScoreError
from cutline.metrics.base import Candidates, MeanMetric, References
from cutline.metrics.comparison import compare
from cutline.metrics.evaluation import Evaluation, evaluate
from cutline.report.page import write
from tests.report import drawn_run

REFERENCES = {str(number): [f"A dog number {number}", "The dog"] for number in range(40)}
PREDICTIONS = {name: "A dog" if int(name) % 4 else "a dog" for name in REFERENCES}
CAPITAL = cutline.ScoreInfo("capital", "Capital", "Share of captions that start with a capital letter.", unit="share")
SHOUTS = cutline.ScoreInfo("shouts", "Shouts", "Capital letters of a caption.", higher_is_better=False)


class Capital:
    scores = (CAPITAL,)
    version = 3

    def values(self, candidates: Candidates) -> list[bool]:
        return [caption[:1].isupper() for caption in candidates.captions]


class Both:
    scores = (CAPITAL, SHOUTS)

    def values(self, candidates: Candidates) -> list[tuple[bool, int]]:
        return [(c[:1].isupper(), sum(letter.isupper() for letter in c)) for c in candidates.captions]


class AsSubclass(MeanMetric):
    scores = (CAPITAL,)

    def values(self, candidates: Candidates) -> np.ndarray:
        return np.array([[caption[:1].isupper()] for caption in candidates.captions], np.float64)


def test_an_object_is_scored_beside_named_metrics() -> None:
    scores = cutline.score(PREDICTIONS, REFERENCES, metrics=[Capital(), "bleu4"], resamples=200)
    assert set(scores) == {"capital", "bleu4"}
    capital = scores["capital"]
    assert capital.value == pytest.approx(0.75)
    assert 0 < capital.low < 0.75 < capital.high < 1
    assert capital.per_image[:4] == (0, 1, 1, 1)
    assert capital.signature == "capital|v:3|refs:2|images:40|empty:0"
    assert capital.info == CAPITAL


def test_an_object_a_class_and_a_function_give_the_same() -> None:
    given: list[Any] = [Capital(), AsSubclass, lambda references: AsSubclass(references), Both()]
    found = [cutline.score(PREDICTIONS, REFERENCES, [one], resamples=50)["capital"] for one in given]
    assert len({(score.value, score.low, score.high) for score in found}) == 1


def test_its_direction_counts_in_comparisons() -> None:
    quiet = {name: text.lower() for name, text in PREDICTIONS.items()}
    found = compare({"a": PREDICTIONS, "b": quiet}, REFERENCES, [Both()], resamples=50, by="shouts")
    rows = {row.metric: row for row in found.differences}
    assert (rows["shouts"].wins, rows["shouts"].losses) == (30, 0)
    assert (rows["capital"].wins, rows["capital"].losses) == (0, 30)
    assert all(moved.better for moved in found.moved)
    labels = list(comparison_table(found).columns[0].cells)
    assert labels == ["Capital %", "Shouts ↓"]


def test_its_label_and_meaning_stand_in_table_and_report(tmp_path: Path) -> None:
    run = drawn_run.make(tmp_path)
    known = Evaluation.load(run)
    references = dict(zip(known.ids, known.references, strict=True))
    predictions = dict(zip(known.ids, known.captions, strict=True))
    found = evaluate(predictions, references, metrics=[Both(), "cider"])
    assert "Capital %" in list(scores_table(found).columns[0].cells)
    found.save(run)
    assert Evaluation.load(run).scores["capital"].info == CAPITAL
    page = write(run).read_text(encoding="utf-8")
    assert "Capital<small>Share of captions that start with a capital letter.</small>" in page
    assert "Shouts<small>Capital letters of a caption. Lower is better.</small>" in page
    shutil.rmtree(run)


class NoInfo:
    scores = ("capital",)

    def values(self, candidates: Candidates) -> list[float]:
        return [0.0] * len(candidates.captions)


class TooFew:
    scores = (CAPITAL,)

    def values(self, candidates: Candidates) -> list[float]:
        return [0.0]


class NotNumbers:
    scores = (CAPITAL,)

    def values(self, candidates: Candidates) -> list[str]:
        return list(candidates.captions)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ([NoInfo()], r"NoInfo\.scores is not a tuple of ScoreInfo\. .*ScoreInfo\("),
        ([TooFew()], r"TooFew\.values returned an array of shape \(1,\) for 40 images and 1 score\."),
        ([NotNumbers()], r"NotNumbers\.values failed: could not convert string"),
        ([Capital], r"Capital is given as a class\. Give an object: metrics=\[Capital\(\)\]"),
        ([AsSubclass(References(REFERENCES))], r"AsSubclass is given as an object.*metrics=\[AsSubclass\]"),
        ([lambda references: 3], "<lambda> returns int, which is not a metric"),
        ([3], "3 is not a metric"),
        ([Capital(), Both()], "Several metrics return a score named capital"),
    ],
)
def test_what_is_wrong_is_said(metrics: list[object], message: str) -> None:
    with pytest.raises(ScoreError, match=message):
        cutline.score(PREDICTIONS, REFERENCES, metrics=metrics)  # type: ignore[arg-type]
