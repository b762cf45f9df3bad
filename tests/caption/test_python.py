"""Python says what the command line says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import cutline
from cutline.core.errors import CutlineError
from cutline.core.records import Prediction
from tests.conftest import drawing
from tests.data.bad_images import COLOURFUL, encode, grey16, see_through


def test_python_says_what_the_command_line_says(checkpoint, photos, tmp_path, command):
    for name in ("cmyk.jpg", "rgb16.png", "turned6.jpg"):
        (photos / name).write_bytes(COLOURFUL[name]())
    (photos / "alpha.png").write_bytes(encode(see_through("RGBA"), "PNG"))
    (photos / "grey16.png").write_bytes(grey16())
    _, out, _ = command("caption", checkpoint, photos, "--format", "jsonl")
    expected = {row["id"]: Prediction.from_json(row) for row in map(json.loads, out.splitlines())}
    captioner = cutline.load(checkpoint)
    names = sorted(expected)
    assert captioner.caption(names) == [expected[name] for name in names]
    assert captioner.caption([Path(name) for name in names]) == [expected[name] for name in names]
    (one,) = captioner.caption(photos / "1.png")
    assert one.caption == expected[str(photos / "1.png")].caption
    # pictures in memory, also those that Pillow opens lazily, are seen as their files are
    for name in names:
        if name.endswith("cut.jpg"):
            continue
        with Image.open(name) as picture:
            (made,) = captioner.caption(picture)
        assert made.caption == expected[name].caption, name
        assert made.logprob == pytest.approx(expected[name].logprob, abs=1e-3)
        assert made.id == "0"
    assert captioner.caption([]) == []
    assert captioner.caption(drawing(1), num_beams=3, max_new_tokens=2)[0].tokens <= 2


def test_python_gives_one_answer_an_image_in_order(checkpoint, photos):
    captioner = cutline.load(str(checkpoint.parent / "model"))
    with Image.open(photos / "cut.jpg") as cut_off:
        given = [photos / "1.png", drawing(2), photos / "gone.jpg", cut_off, photos / "1.png"]
        made = captioner.caption(given)
    assert [row.id for row in made] == [
        str(photos / "1.png"),
        "1",
        str(photos / "gone.jpg"),
        "3",
        str(photos / "1.png"),
    ]
    assert [row.status for row in made] == ["ok", "ok", "failed", "failed", "ok"]
    assert made[0].caption == made[4].caption
    assert (made[2].error or "").startswith("missing: ")
    assert (made[3].error or "").startswith("truncated: ")
    with pytest.raises(TypeError, match="images are paths or PIL images, not ndarray"):
        captioner.caption([torch.zeros(2, 2).numpy()])  # type: ignore[list-item]
    with pytest.raises(CutlineError, match=r"caption\(\): unknown key beems"):
        captioner.caption(given, beems=2)
