"""Each probe of the data fails on a dataset with the mistake that it looks for, and the others pass."""

from __future__ import annotations

from cutline.families.settings import GenerateSettings
from tests.check.making import dataset, failures, run, subject


def rows(**changes: list[str]) -> list[dict[str, str]]:
    defaults = {"caption": [f"a thing number {n}" for n in range(6)], "split": ["train"] * 4 + ["val", "test"]}
    columns = defaults | changes
    return [{name: values[n] for name, values in columns.items()} for n in range(6)]


DATA = ("data_groups", "data_duplicates", "data_lengths", "data_context")


def test_sound_data(tmp_path):
    probed = subject(tmp_path, "qwen2_5_vl", dataset=dataset(tmp_path, rows()), tiny=False)
    reports = run(probed, *DATA)
    assert {name: report.status for name, report in reports.items()} == {
        "data_groups": "passed",
        "data_duplicates": "passed",
        "data_lengths": "passed",
        "data_context": "not applicable",
    }


def test_a_group_in_two_splits(tmp_path):
    data = dataset(tmp_path, rows(group=["a", "b", "c", "d", "e", "a"]))
    reports = run(subject(tmp_path, "cnn_rnn", dataset=data), *DATA)
    assert failures(reports) == {"data_groups"}
    assert "1 in test, 1 in train" in reports["data_groups"].message


def test_a_picture_in_two_splits_under_two_names(tmp_path):
    data = dataset(tmp_path, rows(picture=["0", "1", "2", "3", "2", "5"]))
    reports = run(subject(tmp_path, "cnn_rnn", dataset=data), *DATA)
    assert failures(reports) == {"data_duplicates"}
    assert "2.png = 4.png" in reports["data_duplicates"].message


def test_captions_longer_than_the_limit(tmp_path):
    data = dataset(tmp_path, rows(caption=["a b"] * 5 + [" ".join(["word"] * 60)]))
    probed = subject(tmp_path, "qwen2_5_vl", dataset=data, tiny=False, generate=GenerateSettings(max_new_tokens=30))
    reports = run(probed, *DATA)
    assert failures(reports) == {"data_lengths"}
    assert "1 of 6 captions are longer than [generate] max_new_tokens = 30" in reports["data_lengths"].message


def test_context_that_gives_the_caption_away(tmp_path):
    texts = [f"Yesterday: A thing, number {n}." for n in range(6)]
    data = dataset(tmp_path, rows(headline=texts), context=["headline"])
    probed = subject(tmp_path, "qwen2_5_vl", dataset=data)
    probed.family.prompt = "Describe it. {context}"
    reports = run(probed, *DATA)
    assert failures(reports) == {"data_context"}
    assert "'headline' contains the caption of 6 of 6 images" in reports["data_context"].message
