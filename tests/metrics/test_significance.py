"""One bootstrap, one paired test."""

import time

import numpy as np
import pytest

from cutline.metrics import significance
from cutline.metrics.scorer import score


def mean(sums: significance.Floats) -> significance.Floats:
    values: significance.Floats = sums[..., :1] / sums[..., 1:]
    return values


def statistics(values: significance.Floats) -> significance.Floats:
    return np.stack([values, np.ones(len(values))], axis=1)


def test_bootstrap_equals_a_loop_over_resamples() -> None:
    values = np.random.default_rng(0).normal(size=(50, 3))
    fast = significance.resampled(values, 20, seed=5)
    random = np.random.default_rng(5)
    slow = [values[random.integers(50, size=50)].sum(axis=0) for _ in range(20)]
    np.testing.assert_allclose(fast, slow, atol=1e-12)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        drawn = significance.resampled(statistics(random.exponential(size=80)), 300, trial)
        low, high = significance.interval(mean(drawn))
        covered += bool(low[0] <= 1.0 <= high[0])
    assert 0.88 <= covered / 200 <= 0.99


def test_groups_are_drawn_together_and_widen_the_interval() -> None:
    names = [f"i{number}" for number in range(100)]
    references = {name: [f"{name} is one", "two"] for name in names}
    # all ten images of a group are right, or none is
    predictions = {name: references[name][0] if number // 10 % 2 else "wrong" for number, name in enumerate(names)}
    plain = score(predictions, references, metrics=["exact_match"])["exact_match"]
    groups = {name: str(number // 10) for number, name in enumerate(names)}
    grouped = score(predictions, references, metrics=["exact_match"], groups=groups)["exact_match"]
    assert plain.value == grouped.value == 0.5
    assert grouped.high - grouped.low > 2 * (plain.high - plain.low)


def p_values(shift: float) -> significance.Floats:
    random = np.random.default_rng(7)
    found = []
    for trial in range(200):
        image = random.normal(size=60)
        a, b = image + random.normal(size=60), image + random.normal(size=60) + shift
        result = significance.paired(statistics(a), statistics(b), mean, resamples=200, seed=trial)
        found.append([result.p_bootstrap[0], result.p_randomisation[0]])
    return np.array(found)


def test_equal_systems_give_uniform_p_values() -> None:
    for values in p_values(0.0).T:
        observed = np.sort(values)
        expected = (np.arange(200) + 0.5) / 200
        assert np.abs(observed - expected).max() < 0.12  # Kolmogorov-Smirnov, 200 draws: 0.115 at p = 0.01


def test_unequal_systems_give_small_p_values() -> None:
    assert np.quantile(p_values(1.0), 0.9, axis=0).max() < 0.01


def test_paired_interval_ignores_what_images_share() -> None:
    random = np.random.default_rng(0)
    image = random.normal(size=100) * 100
    a = statistics(image + random.normal(size=100))
    b = statistics(image + random.normal(size=100) + 3)
    result = significance.paired(a, b, mean)
    assert result.difference[0] == pytest.approx(3, abs=0.6)
    assert 2 < result.low[0] < result.difference[0] < result.high[0] < 4


def test_equal_predictions_have_no_difference() -> None:
    a = statistics(np.random.default_rng(0).normal(size=30))
    result = significance.paired(a, a.copy(), mean, resamples=50)
    assert result.difference[0] == result.low[0] == result.high[0] == 0
    assert result.p_bootstrap[0] == result.p_randomisation[0] == 1


def test_a_thousand_resamples_of_everything_on_5000_images_are_quick() -> None:
    random = np.random.default_rng(0)
    begun = time.process_time()
    significance.resampled(random.normal(size=(5000, 60)), 1000, 0)
    assert time.process_time() - begun < 4
