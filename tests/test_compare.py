"""compare(): the paired tests on captions, and who moved."""

import numpy as np
import pytest

from cutline.cli.tables import comparison_table
from cutline.core.errors import ScoreError
from cutline.metrics.comparison import compare

NOUNS = ["cup", "dog", "pen", "hat", "car", "cat", "bus", "bed"]
REFERENCES = {f"{n}": [f"a {NOUNS[n % 8]} on a table {n}", f"the {NOUNS[n % 8]}"] for n in range(80)}
RIGHT = {name: texts[0] for name, texts in REFERENCES.items()}


def some_right(share: float, seed: int) -> dict[str, str]:
    random = np.random.default_rng(seed)
    return {name: text if random.random() < share else "a thing" for name, text in RIGHT.items()}


def test_better_systems_are_significantly_better() -> None:
    found = compare(
        {"a": some_right(0.2, 0), "b": some_right(0.9, 1)}, REFERENCES, ["cider", "exact_match"], resamples=200
    )
    for row in found.differences:
        assert row.difference == pytest.approx(row.value_b - row.value_a)
        assert 0 < row.low < row.difference < row.high
        assert max(row.p_bootstrap, row.p_randomisation) < 0.02
        assert row.wins + row.ties + row.losses == 80
        assert row.wins > row.losses
        assert row.signature.startswith(row.metric)
    assert {row.metric for row in found.differences} == {"cider", "exact_match"}
    assert found.moved[-1].change == max(row.change for row in found.moved) > 0
    assert found.moved[0].change == min(row.change for row in found.moved) < 0
    assert found.moved[-1].caption_a == "a thing"
    assert comparison_table(found).row_count == 2
    assert found.to_json()["systems"] == ["a", "b"]


def test_equal_systems_are_not() -> None:
    rows = compare({"a": some_right(0.5, 0), "b": some_right(0.5, 0)}, REFERENCES, ["bleu"], resamples=100).differences
    assert all(row.difference == 0 and row.p_bootstrap == row.p_randomisation == 1 and row.ties == 80 for row in rows)


def test_every_system_is_compared_with_the_first() -> None:
    systems = {name: some_right(0.5, seed) for seed, name in enumerate("abc")}
    found = compare(systems, REFERENCES, ["bleu4"], resamples=20)
    assert [(row.a, row.b, row.metric) for row in found.differences] == [("a", "b", "bleu4"), ("a", "c", "bleu4")]
    assert any("2 tests" in text for text in found.warnings)


def test_what_is_missing_and_what_is_left_out_is_said() -> None:
    systems = {"a": dict(list(RIGHT.items())[2:]), "b": dict.fromkeys(RIGHT, "a thing")}
    found = compare(systems, REFERENCES, ["bleu4", "novelty"], resamples=20, allow_missing=True)
    assert [row.metric for row in found.differences] == ["bleu4"]
    assert "a: 2 of 80 images have no prediction and were scored as empty." in found.warnings
    assert any(text.startswith("b: novel was left out: the training captions") for text in found.warnings)
    known = compare(systems, REFERENCES, ["novelty"], resamples=20, allow_missing=True, training=["A thing!"])
    assert [(row.value_a, row.value_b) for row in known.differences] == [(78 / 80, 0)]


def test_groups_are_tested_together() -> None:
    # all of a group's images change together: one group is one observation
    groups = {name: int(name) % 4 for name in REFERENCES}
    better = {name: text if groups[name] else "a thing" for name, text in RIGHT.items()}
    worse = dict.fromkeys(RIGHT, "a thing")
    alone = compare({"a": worse, "b": better}, REFERENCES, ["exact_match"], resamples=200)
    together = compare({"a": worse, "b": better}, REFERENCES, ["exact_match"], groups=groups, resamples=200)
    assert alone.differences[0].p_randomisation < 0.02
    assert together.differences[0].p_randomisation > 0.1


def test_a_system_wins_where_less_is_better_by_scoring_less() -> None:
    loops = {name: f"{text} {text} {text}" if int(name) % 2 else text for name, text in RIGHT.items()}
    found = compare({"a": loops, "b": RIGHT}, REFERENCES, ["hygiene"], resamples=200, by="repeated", most=2)
    row = next(row for row in found.differences if row.metric == "repeated")
    assert row.difference == pytest.approx(-0.5)
    assert row.gain == pytest.approx(0.5)
    assert (row.wins, row.ties, row.losses) == (40, 40, 0)
    assert [(moved.change, moved.better) for moved in found.moved] == [(-1.0, True)] * 2


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ScoreError, match="nothing to compare"):
        compare({"a": RIGHT}, REFERENCES)
    with pytest.raises(ScoreError, match="needs resamples"):
        compare({"a": RIGHT, "b": RIGHT}, REFERENCES, resamples=0)
    with pytest.raises(ScoreError, match="no prediction"):
        compare({"a": RIGHT, "b": {}}, REFERENCES)
