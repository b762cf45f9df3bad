"""Files that are replaced whole, locks, and the notes of what made something."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading

import pytest

from cutline.core.errors import CutlineError
from cutline.core.files import locked, replaced, write_atomically
from cutline.core.made_by import check_made_by


def test_a_file_is_replaced_whole_or_stays(tmp_path):
    path = tmp_path / "new/folder/a.txt"
    with replaced(path) as temporary:
        temporary.write_text("old")
        assert not path.exists()
        assert temporary.parent == path.parent  # a rename across file systems is a copy
    with pytest.raises(UnicodeEncodeError), replaced(path) as temporary:
        temporary.write_text("a half and \ud800", encoding="utf-8")
    assert path.read_text() == "old"
    with replaced(path, durable=False) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["a.txt"]


def test_what_can_not_be_replaced_leaves_nothing_behind(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path / "folder", "text")
    with pytest.raises(FileNotFoundError), replaced(tmp_path / "nothing.txt"):
        pass  # nobody wrote
    assert os.listdir(tmp_path) == ["folder"]


def test_the_mode_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a.txt", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_the_longest_name_has_room(tmp_path):
    name = "n" * 255
    write_atomically(tmp_path / name, "text")
    assert os.listdir(tmp_path) == [name]


def test_threads_may_write_one_file(tmp_path):
    path, texts = tmp_path / "a.txt", [str(number) * 100_000 for number in range(8)]
    threads = [threading.Thread(target=write_atomically, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_lock_keeps_others_out_and_ends_with_its_process(tmp_path):
    path = tmp_path / "new/lock"
    busy = CutlineError("Another process is here.", "Wait.")
    script = f"""
from cutline.core.files import locked
with locked({str(path)!r}):
    print("in", flush=True)
    input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(CutlineError, match="Another process is here"), locked(path, busy):
            pass
        other.kill()
        other.wait()
    with locked(path, busy):
        pass


def test_work_is_not_resumed_with_something_else(tmp_path):
    note, output = tmp_path / "a.made-by", tmp_path / "a"
    made_by = {"checkpoint": "0123456789abcdef0", "settings": {"num_beams": 1, "seed": (1, 2)}}
    check_made_by(note, made_by, output, "Begin again.")
    check_made_by(note, made_by, output, "Begin again.")
    changed = {"checkpoint": "fedcba98765432100", "settings": {"num_beams": 3, "seed": (1, 2)}}
    with pytest.raises(CutlineError) as refused:
        check_made_by(note, changed, output, "Begin again.")
    assert refused.value.problem == f"{output} was made differently: another checkpoint; num_beams was 1, is 3."
    assert refused.value.remedy == "Begin again."
    check_made_by(note, changed, output, "Begin again.", resumes=False)
    check_made_by(note, changed, output, "Begin again.")
    note.unlink()
    with pytest.raises(CutlineError, match="by something else"):
        check_made_by(note, changed, output, "Begin again.", resumes=True)
