"""Each probe of the data is proved by a dataset that is spoilt in the way that it looks for."""

from __future__ import annotations

from cutline.families.settings import GenerateSettings
from tests.check.making import dataset, failures, subject, verdicts


def rows(**changes: list[str]) -> list[dict[str, str]]:
    usual = {"caption": [f"a thing number {n}" for n in range(6)], "split": ["train"] * 4 + ["val", "test"]}
    columns = usual | changes
    return [{name: values[n] for name, values in columns.items()} for n in range(6)]


DATA = ("data_groups", "data_duplicates", "data_lengths", "data_context")


def test_sound_data(tmp_path):
    probed = subject(tmp_path, "qwen2_5_vl", dataset=dataset(tmp_path, rows()), tiny=False)
    found = verdicts(probed, *DATA)
    assert {name: verdict.status for name, verdict in found.items()} == {
        "data_groups": "passed", "data_duplicates": "passed", "data_lengths": "passed",
        "data_context": "not applicable",
    }  # fmt: skip


def test_a_group_in_two_splits(tmp_path):
    made = dataset(tmp_path, rows(group=["a", "b", "c", "d", "e", "a"]))
    found = verdicts(subject(tmp_path, "cnn_rnn", dataset=made), *DATA)
    assert failures(found) == {"data_groups"}
    assert "1 in test, 1 in train" in found["data_groups"].what


def test_a_picture_in_two_splits_under_two_names(tmp_path):
    made = dataset(tmp_path, rows(picture=["0", "1", "2", "3", "2", "5"]))
    found = verdicts(subject(tmp_path, "cnn_rnn", dataset=made), *DATA)
    assert failures(found) == {"data_duplicates"}
    assert "2.png = 4.png" in found["data_duplicates"].what


def test_captions_longer_than_the_limit(tmp_path):
    made = dataset(tmp_path, rows(caption=["a b"] * 5 + [" ".join(["word"] * 60)]))
    probed = subject(tmp_path, "qwen2_5_vl", dataset=made, tiny=False, generate=GenerateSettings(max_new_tokens=30))
    found = verdicts(probed, *DATA)
    assert failures(found) == {"data_lengths"}
    assert "1 of 6 captions are longer than [generate] max_new_tokens = 30" in found["data_lengths"].what


def test_context_that_gives_the_caption_away(tmp_path):
    texts = [f"Yesterday: A thing, number {n}." for n in range(6)]
    made = dataset(tmp_path, rows(headline=texts), context=["headline"])
    probed = subject(tmp_path, "qwen2_5_vl", dataset=made)
    probed.family.prompt = "Describe it. {context}"
    found = verdicts(probed, *DATA)
    assert failures(found) == {"data_context"}
    assert "'headline' holds the caption of 6 of 6 images" in found["data_context"].what
