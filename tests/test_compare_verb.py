"""``cutline compare`` at the command line."""

from __future__ import annotations

import json
import sys

import pytest

from cutline.cli import main as cli

REFERENCES = {f"{n}.jpg": [f"a dog number {n} runs", f"dog {n} is running"] for n in range(30)}


@pytest.fixture
def files(tmp_path):
    rows = [{"id": name, "captions": texts} for name, texts in REFERENCES.items()]
    (tmp_path / "references.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, caption in (("good", "a dog number {} runs"), ("bad", "a cat sleeps")):
        (tmp_path / name).mkdir()
        said = [{"id": f"{n}.jpg", "caption": caption.format(n)} for n in range(30)]
        (tmp_path / name / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
    return tmp_path


def call(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["cutline", "compare", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_better_run_is_named_with_its_test_and_the_images_that_moved(files, monkeypatch, capsys):
    paths = [files / name / "predictions.jsonl" for name in ("bad", "good")]
    options = ["--references", files / "references.jsonl", "--metrics", "cider,bleu1", "--json"]
    assert call(monkeypatch, *paths, *options) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["systems"] == ["bad/predictions.jsonl", "good/predictions.jsonl"]
    cider = next(row for row in found["differences"] if row["metric"] == "cider")
    assert cider["difference"] > 1
    assert cider["p_bootstrap"] < 0.01
    assert (cider["wins"], cider["losses"]) == (30, 0)
    assert found["moved"][0]["caption_b"].startswith("a dog number")
    assert call(monkeypatch, *paths, *options[:-1]) == 0
    shown = capsys.readouterr().out
    assert "compared with bad/predictions.jsonl" in " ".join(shown.split())
    assert "30/0/0" in shown  # and nothing is cut off at 80 columns
    assert "…" not in shown
    assert "a cat sleeps  →  a dog number" in shown


def test_one_file_and_the_same_file_twice_are_errors(files, monkeypatch, capsys):
    path = files / "good" / "predictions.jsonl"
    for given in ([path], [path, path]):
        assert call(monkeypatch, *given, "--references", files / "references.jsonl") == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 2
