"""Captioning survives any image: each bad one says why, each good one is captioned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from PIL import Image

from tests.caption.helping import rows
from tests.conftest import drawing
from tests.data.bad_images import BROKEN, COLOURFUL, encode, grey16, marker, palette_transparent, see_through

ODD: dict[str, Any] = {
    **{name: COLOURFUL[name] for name in ("cmyk.jpg", "rgb16.png", "frames.gif", "turned6.jpg", "broken_exif.jpg",
                                          "webp_named.jpg", "trailing.jpg", "tagged.tif", "portable.ppm")},
    "grey16.png": grey16,
    "grey.jpg": lambda: encode(marker().convert("L"), "JPEG"),
    "alpha.png": lambda: encode(see_through("RGBA"), "PNG"),
    "palette.png": palette_transparent,
    "dot.png": lambda: encode(Image.new("RGB", (1, 1)), "PNG"),
    "line.png": lambda: encode(Image.new("RGB", (900, 1)), "PNG"),
}  # fmt: skip


def test_among_bad_images_every_good_one_is_captioned_and_every_bad_one_says_why(checkpoint, tmp_path, command):
    folder = tmp_path / "photos"
    (folder / "deep/er.jpg").mkdir(parents=True)  # a folder, whatever it is called
    expected: dict[str, str | None] = {}

    def put(name: str, data: bytes, reason: str | None) -> None:
        (folder / name).write_bytes(data)
        expected[str(folder / name)] = reason

    for name, (make, why) in BROKEN.items():
        # a Photoshop file isn't looked for in a folder, so it hides behind another ending
        put(name if name != "layers.psd" else "layers.jpg", make(), why)
    for name, whole in ODD.items():
        put(name, whole(), None)
    for number in range(5):
        put(f"deep/er.jpg/{number}.JPG", encode(drawing(number), "JPEG"), None)
    put("größe 本.jpg", encode(drawing(9), "JPEG"), None)
    put(".hidden.jpg", b"", None)
    put("notes.txt", b"not looked for", None)
    del expected[str(folder / ".hidden.jpg")], expected[str(folder / "notes.txt")]
    (folder / "dangling.jpg").symlink_to(tmp_path / "gone.jpg")
    expected[str(folder / "dangling.jpg")] = "missing"
    put("closed.jpg", encode(drawing(1), "JPEG"), "unreadable" if os.geteuid() else None)  # root reads anything
    (folder / "closed.jpg").chmod(0)

    code, out, talk = command("caption", checkpoint, folder, "-o", tmp_path / "p.jsonl")
    assert code == 1
    assert out == ""
    found = rows(tmp_path / "p.jsonl")
    assert found.keys() == expected.keys()
    for name, reason in expected.items():
        row = found[name]
        if reason is None:
            assert (row.status, row.error) == ("ok", None), row
            assert row.caption is not None
            assert row.logprob is not None
            assert row.tokens > 0
        else:
            assert (row.status, row.caption, row.logprob, row.tokens) == ("failed", None, None, 0), row
            assert row.error is not None
            assert row.error.startswith(f"{reason}: "), row
    failed = sum(reason is not None for reason in expected.values())
    assert failed >= 20
    assert f"{len(expected) - failed} of {len(expected)} images captioned in" in talk.splitlines()[-1]
    assert f"{failed} have no caption" in talk.splitlines()[-1]
    assert talk.count("no caption: ") == 20
    assert f"… and {failed - 20} more" in talk


def test_a_folder_that_cannot_be_read_gets_a_row(checkpoint, photos, command, monkeypatch):
    real = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    (photos / "closed").mkdir()
    monkeypatch.setattr(os, "scandir", scandir)
    code, out, _ = command("caption", checkpoint, photos, "--format", "jsonl")
    assert code == 1
    assert sum(json.loads(line)["id"] == str(photos / "closed") for line in out.splitlines()) == 1
    assert len(out.splitlines()) == 12


def test_names_on_stdin_that_are_missing_or_strange_get_rows(checkpoint, photos, tmp_path, monkeypatch):
    odd = os.fsdecode(os.fsencode(str(photos)) + b"/caf\xe9.png")
    drawing(3).save(odd, "PNG")
    names = [str(photos / "1.png"), str(photos / "gone.jpg"), str(photos), odd, str(photos / "1.png"), "", "a\0b.jpg"]
    done = subprocess.run(
        [sys.executable, "-m", "cutline.cli.main", "caption", str(checkpoint), "-", "-o", str(tmp_path / "p.jsonl")],
        input=os.fsencode("\r\n".join(names)), capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    found = rows(tmp_path / "p.jsonl")
    assert list(found) != []
    assert {name: (row.error or "").partition(":")[0] for name, row in found.items()} == {
        names[0]: "", names[1]: "missing", names[2]: "unreadable", odd: "", "a\0b.jpg": "unreadable",
    }  # fmt: skip
    assert found[odd].caption


def test_a_missing_argument_is_a_user_error_before_the_model_is_opened(photos, command):
    code, out, talk = command("caption", "no/such/checkpoint/here", photos, photos / "gone.jpg")
    assert (code, out) == (2, "")
    assert talk.startswith(f"error: There is no image or folder {photos / 'gone.jpg'}.\n")
    assert len(talk.splitlines()) == 2
