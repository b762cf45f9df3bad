"""Splits: whole groups, the shares asked for, the same whatever the order."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from cutline.data import splits as split
from cutline.data.steps.split import stratified


@pytest.mark.parametrize("seed", range(60))
def test_groups_stay_whole_shares_are_met_and_order_does_not_matter(seed: int) -> None:
    chance = random.Random(seed)
    number = chance.choice([1, 2, 3, 5, 10, 50, 400])
    largest = chance.choice([1, 3, 20])
    groups = [f"g{group}" for group in range(number) for _ in range(chance.randint(1, largest))]
    val, test = chance.choice([(0.1, 0.1), (0.0, 0.2), (0.3, 0.0), (0.05, 0.4), (0.0, 0.0)])
    chance.shuffle(groups)
    splits = split.assign(groups, val, test, seed)
    of_group = dict(zip(groups, splits, strict=True))
    assert all(of_group[group] == name for group, name in zip(groups, splits, strict=True))
    assert split.divided(groups, splits) == {}
    counts = Counter(splits)
    biggest = max(Counter(groups).values())
    if number >= 3:
        assert abs(counts["val"] - val * len(groups)) <= biggest
        assert abs(counts["test"] - test * len(groups)) <= biggest
        assert (counts["val"] > 0) == (val > 0)
        assert (counts["test"] > 0) == (test > 0)
    assert counts["train"] > 0
    chance.shuffle(groups)
    assert dict(zip(groups, split.assign(groups, val, test, seed), strict=True)) == of_group


@pytest.mark.parametrize("seed", range(5))
def test_one_huge_group_leaves_the_small_ones_to_both_others(seed: int) -> None:
    groups = ["huge"] * 90 + [str(number) for number in range(10)]
    assert Counter(split.assign(groups, 0.1, 0.1, seed)) == {"train": 90, "val": 5, "test": 5}
    assert set(split.assign(["huge"] * 90 + ["a", "b"], 0.1, 0.1, seed)) == {"train", "val", "test"}


@pytest.mark.parametrize("number", [3, 4, 5, 9])
def test_with_three_groups_no_stratified_split_is_empty(number: int) -> None:
    groups = [str(place) for place in range(number)]
    found = stratified(groups, [str(place % 3) for place in range(number)], 0.1, 0.1, 0)
    assert set(found.values()) == {"train", "val", "test"}
    assert set(found) == set(groups)


def test_the_seed_decides() -> None:
    groups = [str(number) for number in range(200)]
    assert split.assign(groups, 0.1, 0.1, 0) == split.assign(groups, 0.1, 0.1, 0)
    assert split.assign(groups, 0.1, 0.1, 0) != split.assign(groups, 0.1, 0.1, 1)


def test_one_sample_more_changes_little() -> None:
    groups = [str(number) for number in range(1000)]
    before = split.assign(groups, 0.1, 0.1, 0)
    after = split.assign([*groups, "new"], 0.1, 0.1, 0)
    assert sum(a != b for a, b in zip(before, after, strict=False)) <= 3


def test_usual_names_and_renames() -> None:
    for name, expected in {"Validation": "val", "dev": "val", "training": "train", "TEST": "test"}.items():
        assert split.canonical(name, {}) == expected
    assert split.canonical("restval", {"restval": "train"}) == "train"
    assert split.canonical("restval", {}) == "restval"
    assert split.canonical("train", {"train": ""}) == ""


def test_a_sample_without_split_follows_its_group() -> None:
    assert split.complete(["a", "a", "b"], ["", "test", ""]) == ["test", "test", "train"]


def test_divided_groups_are_found() -> None:
    assert split.divided(["a", "b", "a"], ["train", "test", "test"]) == {"a": {"test": 1, "train": 1}}


def test_groups_are_joined_through_others() -> None:
    assert split.joined([("d", "c"), ("a", "b"), ("b", "c")]) == {"a": ["a", "b", "c", "d"]}


def test_a_draw_does_not_depend_on_the_order() -> None:
    ids = [str(number) for number in range(100)]
    splits = ["train" if number % 3 else "val" for number in range(100)]
    first = {ids[place] for place in split.draw(ids, splits, 7, seed=0)}
    back = {ids[::-1][place] for place in split.draw(ids[::-1], splits[::-1], 7, seed=0)}
    assert first == back
    assert len(first) == 14
