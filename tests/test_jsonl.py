"""Files of records lose nothing but a torn last line, and never glue two records together."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from cutline.core import jsonl
from cutline.core.errors import CutlineError, DataError
from cutline.core.files import write_atomically

ROWS: list[dict[str, Any]] = [
    {"id": "a", "caption": "a dog"},
    {"id": "ü/本.jpg", "caption": 'says "hi"\nand goes'},
    {"id": "c", "n": 0.5},
]


def lines(rows=ROWS) -> bytes:
    return "".join(jsonl.dumps(row) + "\n" for row in rows).encode()


def test_a_file_cut_at_any_byte_goes_on_with_whole_records(tmp_path):
    path, data = tmp_path / "rows.jsonl", lines()
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        seen = list(jsonl.read(path))
        assert seen == ROWS[: len(seen)]
        with jsonl.Appender(path) as out:
            out.write([{"id": "next"}])
        # what a reader saw before is exactly what stands before the new record
        assert list(jsonl.read(path)) == [*seen, {"id": "next"}], cut
        assert path.read_bytes().count(b"\n") == len(seen) + 1


def test_only_the_torn_line_is_touched(tmp_path):
    path = tmp_path / "rows.jsonl"
    for tail, kept in ((b"", b""), (b'{"id": "d', b""), (b"\0" * 100_000, b""), (b'{"id": "d"}', b'{"id": "d"}\n')):
        path.write_bytes(lines() + tail)
        jsonl.cut_torn_tail(path)
        assert path.read_bytes() == lines() + kept
    path.write_bytes(b"no line end at all" * 10_000)
    jsonl.cut_torn_tail(path)
    assert path.read_bytes() == b""
    jsonl.cut_torn_tail(tmp_path / "absent.jsonl")
    assert not (tmp_path / "absent.jsonl").exists()


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"id": "a"}\n\n{"id": "b", \n{"id": "c"}\n')
    with pytest.raises(DataError, match="line 3 is not JSON"):
        list(jsonl.read(path))
    path.write_bytes(b'{"id": "a"}\n[1]\n')
    with pytest.raises(DataError, match="line 2 is not a JSON object"):
        list(jsonl.read(path))


def test_a_name_that_is_no_unicode_comes_back_as_it_was(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    with jsonl.Appender(tmp_path / "rows.jsonl") as out:
        out.write([{"id": name, "caption": "größer"}])
    assert list(jsonl.read(tmp_path / "rows.jsonl")) == [{"id": name, "caption": "größer"}]
    write_atomically(tmp_path / "names.csv", f"id\n{name}\n")
    assert (tmp_path / "names.csv").read_bytes() == b"id\ncaf\xe9.jpg\n"


def test_a_write_that_the_system_takes_in_parts_is_whole(tmp_path, monkeypatch):
    class Small:
        """A file on a disk that takes seven bytes at a time."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data):
            return self.file.write(data[:7])

        def close(self):
            self.file.close()

    with jsonl.Appender(tmp_path / "rows.jsonl") as out:
        monkeypatch.setattr(out, "_file", Small(out._file))
        out.write(ROWS)
    assert list(jsonl.read(tmp_path / "rows.jsonl")) == ROWS


def test_two_dont_write_one_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    with jsonl.Appender(path) as out:
        out.write(ROWS)
        with pytest.raises(CutlineError, match="Another process is writing"):
            jsonl.Appender(path)
    with jsonl.Appender(path) as out:
        out.write(ROWS[:1])
    assert list(jsonl.read(path)) == [*ROWS, ROWS[0]]


def test_a_file_is_replaced_whole_whatever_the_length_of_its_name(tmp_path):
    path = tmp_path / ("n" * 251 + ".txt")
    write_atomically(path, "old")
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
    write_atomically(tmp_path / "deep/er/row.json", json.dumps(ROWS).encode())
    assert json.loads((tmp_path / "deep/er/row.json").read_bytes()) == ROWS


def test_what_is_no_file_is_written_to_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(pipe, "new")
    assert os.read(reading, 10) == b"new"
    os.close(reading)
    assert pipe.is_fifo()


def test_what_cannot_be_put_in_place_leaves_nothing_behind(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(tmp_path / "folder", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
