"""Ids that are short and still tell things apart."""

from __future__ import annotations

import pytest

from cutline.core.short_ids import MAX_LENGTH, shorten_ids


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
    assert shorten_ids(ids) == wanted


def test_a_long_id_keeps_its_ends():
    (name,) = shorten_ids(["a street in the old town of Lisbon, early in the morning, no 17.jpg"])
    assert name.startswith("a street")
    assert name.endswith("no 17.jpg")
    assert len(name) <= MAX_LENGTH


def test_ids_that_would_look_alike_are_given_whole():
    ids = ["abcdef0123" * 3 + "1.jpg", "abcdef0123" * 3 + "2.jpg"]
    assert shorten_ids(ids) == ids
    assert shorten_ids([ids[0], ids[0]]) == ["abcdef01….jpg"] * 2  # the same twice is no confusion
