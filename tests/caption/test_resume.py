"""Captioning survives any kill, loses nothing, and mixes nothing."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from cutline.caption.caption import caption
from cutline.caption.files import PredictionFile
from cutline.core import jsonl
from cutline.core.records import Sample
from cutline.families.open import find
from cutline.families.settings import GenerateSettings
from tests.caption.helping import rows
from tests.conftest import drawing


def test_cut_at_any_byte_the_file_becomes_what_an_unbroken_run_makes(family, photos, tmp_path):
    samples = [Sample(id=str(path), image=str(path)) for path in sorted(photos.iterdir())]
    settings = GenerateSettings(max_new_tokens=6, batch_size=4)

    def go_on(path: Path) -> None:
        file = PredictionFile(path, {"model": "a"})
        done = file.open()
        with jsonl.Appender(path) as out:
            for batch in caption(family, samples, settings, done=done):
                assert not {row.id for row in batch} & done.keys()
                out.write(row.to_json() for row in batch)

    go_on(tmp_path / "whole.jsonl")
    whole = (tmp_path / "whole.jsonl").read_bytes()
    expected = rows(tmp_path / "whole.jsonl")
    assert len(expected) == 11
    assert len({row.caption for row in expected.values()}) > 3
    ends = [place + 1 for place, sign in enumerate(whole) if sign == ord("\n")]
    cuts = {0, 1, len(whole), *ends, *(end - 1 for end in ends), *(end + 1 for end in ends[:-1])}
    cuts |= set(random.Random(0).sample(range(len(whole)), 30))
    path = tmp_path / "whole.jsonl"
    for cut in sorted(cuts):
        go_on_from = whole[:cut]
        path.write_bytes(go_on_from)
        go_on(path)
        assert rows(path) == expected, cut  # captions, log-probabilities, errors
        complete = go_on_from[: go_on_from.rfind(b"\n") + 1]
        assert path.read_bytes().startswith(complete)  # nothing is made twice


def test_sampling_draws_the_same_after_a_cut(checkpoint, photos, tmp_path, command):
    how = ("--set", "do_sample=true", "--set", "temperature=1.5")
    command("caption", checkpoint, photos, "-o", tmp_path / "p.jsonl", *how)
    expected = rows(tmp_path / "p.jsonl")
    lines = (tmp_path / "p.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "p.jsonl").write_bytes(b"".join(lines[:6])[:-9])
    command("caption", checkpoint, photos, "-o", tmp_path / "p.jsonl", *how)
    assert rows(tmp_path / "p.jsonl") == expected
    command("caption", checkpoint, photos, "-o", tmp_path / "other.jsonl", *how, "--set", "seed=1")
    assert rows(tmp_path / "other.jsonl") != expected


def test_killed_for_real_it_goes_on(checkpoint, photos, tmp_path, command):
    """kill -9 in the middle of the work, twice; the writer is slowed down so that there is a middle."""
    out = tmp_path / "p.jsonl"
    slow = (
        "import time, cutline.caption.caption as c\nreal = c._Captioner._generate\n"
        "def slow(self, items):\n    time.sleep(0.4)\n    return real(self, items)\n"
        "c._Captioner._generate = slow\nfrom cutline.cli.main import main\nmain()"
    )
    arguments = [str(checkpoint), str(photos), "-o", str(out), "--batch-size", "2"]
    for lines in (1, 5):
        child = subprocess.Popen([sys.executable, "-c", slow, "caption", *arguments], stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while not out.exists() or out.read_bytes().count(b"\n") < lines:
            assert child.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert len(rows(out)) < 11
    assert command("caption", *arguments)[0] == 1
    command("caption", checkpoint, photos, "-o", tmp_path / "whole.jsonl", "--batch-size", "2")
    assert rows(out) == rows(tmp_path / "whole.jsonl")
    before = out.stat()
    assert command("caption", *arguments)[0] == 1  # all is done; still not all have captions
    assert out.stat().st_mtime_ns == before.st_mtime_ns


def test_captions_of_other_settings_or_models_are_never_mixed(checkpoint, photos, tmp_path, command):
    out = tmp_path / "p.jsonl"
    command("caption", checkpoint, photos, "-o", out)
    before = out.read_bytes()
    code, _, talk = command("caption", checkpoint, photos, "-o", out, "--beams", 2)
    assert code == 2
    assert f"error: {out} was made differently: num_beams was 1, is 2." in talk
    assert "--overwrite" in talk
    code, _, talk = command("caption", checkpoint, photos, "-o", out, "--dtype", "bfloat16")
    assert (code, 'dtype was "float32", is "bfloat16"' in talk) == (2, True)
    other = tmp_path / "other"
    find("cnn_rnn").tiny(seed=1).save(other)
    code, _, talk = command("caption", other, photos, "-o", out)
    assert (code, "made differently: another checkpoint" in talk) == (2, True)
    assert out.read_bytes() == before
    # the size of the batch decides nothing
    assert command("caption", checkpoint, photos, "-o", out, "--batch-size", 2)[0] == 1
    assert out.read_bytes() == before
    assert command("caption", checkpoint, photos, "-o", out, "--beams", 2, "--overwrite")[0] == 1
    assert len(rows(out)) == 11
    assert out.read_bytes() != before
    # a file that something else made is not touched
    foreign = tmp_path / "mine.jsonl"
    foreign.write_text('{"id": "a", "caption": "my own"}\n')
    code, _, talk = command("caption", checkpoint, photos, "-o", foreign)
    assert (code, "by something else" in talk) == (2, True)
    assert foreign.read_text() == '{"id": "a", "caption": "my own"}\n'


def test_retry_failed_tries_only_the_failed_and_leaves_one_row_each(checkpoint, photos, tmp_path, command):
    out = tmp_path / "p.jsonl"
    assert command("caption", checkpoint, photos, "-o", out)[0] == 1
    first = rows(out)
    drawing(77).save(photos / "cut.jpg")
    assert command("caption", checkpoint, photos, "-o", out)[0] == 1  # not asked for
    assert rows(out) == first
    assert command("caption", checkpoint, photos, "-o", out, "--retry-failed")[0] == 0
    second = rows(out)
    assert second[str(photos / "cut.jpg")].caption
    assert {id: row for id, row in second.items() if first[id].status == "ok"} == {
        id: row for id, row in first.items() if row.status == "ok"
    }


def test_images_that_came_later_are_added(checkpoint, photos, tmp_path, command):
    out = tmp_path / "p.jsonl"
    command("caption", checkpoint, photos, "-o", out)
    first = rows(out)
    drawing(50).save(photos / "new.png")
    command("caption", checkpoint, photos, "-o", out)
    assert rows(out).keys() - first.keys() == {str(photos / "new.png")}


def test_two_commands_dont_write_one_file(checkpoint, photos, tmp_path, command):
    out = tmp_path / "p.jsonl"
    command("caption", checkpoint, photos, "-o", out)
    before = out.read_bytes()
    with jsonl.Appender(out):
        for more in ([], ["--overwrite"], ["--retry-failed"]):
            code, _, talk = command("caption", checkpoint, photos, "-o", out, *more)
            assert code == 2
            assert "Another process is writing" in talk
    assert out.read_bytes() == before
