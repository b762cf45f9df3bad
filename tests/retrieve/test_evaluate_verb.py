"""``cutline retrieve evaluate`` from the command line."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from cutline.cli.main import app


def test_overwriting_begins_anew_and_leaves_what_is_not_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.toml").write_text(
        '[data]\nsource = "nowhere"\n[model]\nfamily = "clip"\ncheckpoint = "any"\n'
        "[retrieve]\nresamples = 10\nrerank = 3\n"
    )
    out = tmp_path / "mine"
    out.mkdir()
    (out / "notes.txt").write_text("precious")

    def run(*options):
        command = ["retrieve", "evaluate", "r.toml", "--tiny", "--out", str(out), "--device", "cpu", *options]
        return CliRunner().invoke(app, command)

    assert run().exit_code == 0
    first = json.loads((out / "scores.json").read_text())
    result = run("--rerank", "4")
    assert result.exit_code == 2
    assert "rerank was 3, is 4" in result.stderr
    assert run("--rerank", "4", "--overwrite").exit_code == 0
    assert json.loads((out / "retrieval.json").read_text())["rerank"] == 4
    assert json.loads((out / "scores.json").read_text()).keys() == first.keys()
    assert (out / "notes.txt").read_text() == "precious"
