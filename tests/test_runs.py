"""The run folder: one process at a time, markers written last, nothing deleted."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from cutline.core import run_folder as runs
from cutline.core.errors import CutlineError
from cutline.core.fingerprint import fingerprint
from cutline.core.run_folder import RunFolder


def test_a_second_process_is_kept_out(tmp_path):
    script = f"from cutline.core.run_folder import RunFolder\nwith RunFolder({str(tmp_path)!r}).locked(): print('in')"
    with RunFolder(tmp_path).locked():
        other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
        assert "Another cutline process is using" in other.stderr
        assert other.stdout == ""
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert other.stdout == "in\n"


def test_the_lock_goes_with_an_error(tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(KeyError), folder.locked():
        raise KeyError
    with folder.locked():
        pass


def test_a_stage_is_finished_only_from_the_same_and_after_its_end(tmp_path):
    folder = RunFolder(tmp_path)
    assert not folder.is_finished("train", "a")
    assert folder.begin("train", "a", ("model",)) is None
    assert not folder.is_finished("train", "a")
    folder.finish("train", 2.0, steps=5)
    assert folder.is_finished("train", "a")
    assert not folder.is_finished("train", "b")
    marker = folder.stage("train")
    assert abs(marker.pop("started") - time.time()) < 60
    assert marker == {"fingerprint": "a", "finished": True, "seconds": 2.0, "steps": 5}
    assert RunFolder(tmp_path).is_finished("train", "a")  # for the next process too


def test_going_on_keeps_outputs_and_adds_up_time(tmp_path):
    folder = RunFolder(tmp_path)
    folder.begin("caption", "a", ("predictions.jsonl",))
    (tmp_path / "predictions.jsonl").write_text("half")
    folder.finish("caption", 1.5)
    assert folder.begin("caption", "a", ("predictions.jsonl",)) is None
    assert (tmp_path / "predictions.jsonl").read_text() == "half"
    folder.finish("caption", 2.0)
    assert folder.stage("caption")["seconds"] == 3.5


def test_what_a_changed_recipe_replaces_is_moved_and_not_deleted(tmp_path):
    folder = RunFolder(tmp_path)
    outputs = ("model", "predictions.jsonl", "absent.json")
    for number in range(4):  # within one second
        moved = folder.begin("train", f"recipe {number}", outputs)
        assert not (tmp_path / "model").exists()
        assert not (tmp_path / "predictions.jsonl").exists()
        if number:
            assert moved is not None
            assert (moved / "model/weights").read_text() == str(number - 1)
            assert (moved / "predictions.jsonl").read_text() == str(number - 1)
            assert json.loads((moved / "train.json").read_text())["fingerprint"] == f"recipe {number - 1}"
        (tmp_path / "model").mkdir()
        (tmp_path / "model/weights").write_text(str(number))
        (tmp_path / "predictions.jsonl").write_text(str(number))
        folder.finish("train", 1.0)
    kept = sorted(path.read_text() for path in tmp_path.glob("superseded/*/predictions.jsonl"))
    assert kept == ["0", "1", "2"]
    # back to an earlier recipe: made again rather than taken from what was set aside
    assert not folder.is_finished("train", "recipe 0")


def test_same_second_and_same_recipe_dont_meet_in_one_folder(tmp_path):
    folder = RunFolder(tmp_path)
    for number, name in enumerate(("a", "b", "a", "b", "a")):
        folder.begin("score", name, ("scores.json",))
        (tmp_path / "scores.json").write_text(str(number))
    assert sorted(path.read_text() for path in tmp_path.glob("superseded/*/scores.json")) == ["0", "1", "2", "3"]


def test_a_run_says_what_made_it(tmp_path):
    folder = RunFolder(tmp_path / "new/run")
    folder.describe("seed = 1\n", 1)
    folder.note(data={"fingerprint": "x"})
    known = json.loads((tmp_path / "new/run/run.json").read_text())
    assert known["seed"] == 1
    assert known["data"] == {"fingerprint": "x"}
    assert {"cutline", "torch", "transformers", "numpy", "pillow"} <= set(known["versions"])
    assert (tmp_path / "new/run/recipe.toml").read_text() == "seed = 1\n"


def test_git_revision_marks_changes_and_is_none_outside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert runs.git_revision() is None

    def git(*words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.example")
        subprocess.run(["git", *who, *words], check=True, capture_output=True)

    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "one")
    revision = runs.git_revision()
    assert revision is not None
    assert len(revision) == 40
    (tmp_path / "a").write_text("2")
    assert runs.git_revision() == revision + "+"


def test_a_file_in_the_folders_place(tmp_path):
    (tmp_path / "run").write_text("")
    for path in (tmp_path / "run", tmp_path / "run/below"):
        with pytest.raises(CutlineError, match="is a file"):
            RunFolder(path)


def test_fingerprints_tell_values_apart_and_ignore_the_order_of_keys():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    different = [(), (1,), ("1",), (1.5,), ([1],), (None,), ("a", "b"), (["a", "b"],), ("ab",)]
    assert len({fingerprint(*parts) for parts in different}) == len(different)
    assert len(fingerprint("x")) == 16
