"""Ids that are short and still tell things apart."""

from __future__ import annotations

import pytest

from cutline.core.short_ids import MOST, short_names


@pytest.mark.parametrize(
    ("ids", "wanted"),
    [
        (["a.jpg", "b.jpg"], ["a.jpg", "b.jpg"]),
        (["/home/me/photos/a.jpg", "/home/me/photos/b/c.jpg"], ["a.jpg", "b/c.jpg"]),
        (["train/1.jpg", "test/1.jpg"], ["train/1.jpg", "test/1.jpg"]),
        ([f"{'0a' * 32}.jpg#2"], ["0a0a0a0a….jpg#2"]),
        ([], []),
    ],
)
def test_what_all_have_in_common_goes(ids, wanted):
    assert short_names(ids) == wanted


def test_a_long_id_keeps_its_ends():
    (name,) = short_names(["a street in the old town of Lisbon, early in the morning, no 17.jpg"])
    assert name.startswith("a street")
    assert name.endswith("no 17.jpg")
    assert len(name) <= MOST


def test_ids_that_would_look_alike_are_given_whole():
    ids = ["abcdef0123" * 3 + "1.jpg", "abcdef0123" * 3 + "2.jpg"]
    assert short_names(ids) == ids
    assert short_names([ids[0], ids[0]]) == ["abcdef01….jpg"] * 2  # the same twice is no confusion
