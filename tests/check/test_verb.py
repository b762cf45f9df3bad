"""``cutline check``: every recipe passes in miniature, and a failure is printed with its remedy."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cutline.check import probes
from cutline.cli import main as cli
from cutline.cli.check import probe
from cutline.core import config as recipe
from cutline.families.base import Family
from cutline.run import run
from cutline.run.recipe import Recipe

ROOT = Path(__file__).parent.parent.parent
RECIPES = [*sorted((ROOT / "recipes").glob("*.toml")), ROOT / "cutline/cli/demo.toml"]
#: Each recipe as it is, and the one variant that has a model of another kind (Flan-T5 behind BLIP-2).
AS_THEY_ARE = [pytest.param(path, [], id=path.stem) for path in RECIPES]
OTHER = pytest.param(ROOT / "recipes/goodnews-blip2.toml", ["variant=8x24GB"], id="goodnews-blip2-8x24GB")


@pytest.mark.parametrize(("path", "changes"), [*AS_THEY_ARE, OTHER])
def test_every_recipe_is_sound_in_miniature(path, changes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    miniature = run.Run(recipe.load(path, Recipe, changes), tmp_path / "run", tiny=True)
    _, result = probe(miniature, debug=True)
    assert result["passed"]
    assert {one["probe"] for one in result["probes"]} == set(probes.names())
    assert json.loads((tmp_path / "run/check.json").read_text()) == result
    assert not (tmp_path / "run/check").exists()
    assert not (tmp_path / "run/train").exists()


def call(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["cutline", "check", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    code = stop.value.code
    return code if isinstance(code, int) else 0


def test_exit_codes_and_output(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    demo = str(ROOT / "cutline/cli/demo.toml")
    assert call(monkeypatch, demo, "--tiny", "--out", "run", "--only", "no_future,end_token") == 0
    output = capsys.readouterr()
    assert "no token sees later tokens" in output.out
    assert "check: 2 passed; a miniature of vision_encoder_decoder" in output.err
    monkeypatch.setattr(Family, "save_policy", lambda self, folder: None)
    assert call(monkeypatch, demo, "--tiny", "--out", "run", "--only", "saved_and_opened,end_token") == 1
    output = capsys.readouterr()
    assert "FAILED a saved checkpoint gives the same results (saved_and_opened)" in output.out
    assert "remedy: Call save_policy at the end of the family's save." in output.out
    assert call(monkeypatch, demo, "--tiny", "--out", "run", "--only", "end_tokens") == 2
    assert "Did you mean end_token?" in capsys.readouterr().err
