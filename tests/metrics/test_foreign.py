"""A metric of another package, found by its entry point and used from the command line like Cutline's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

MODULE = '''"""Exclamation marks."""

import numpy as np
from pydantic import Field

from cutline import ScoreInfo
from cutline.core.config import Section
from cutline.metrics.base import Candidates, MeanMetric


class ShoutSettings(Section):
    mark: str = Field("!", description="what counts")


class Shout(MeanMetric):
    settings_type = ShoutSettings
    scores = (ScoreInfo("shout", "Shouting", "Share of captions with an exclamation mark.", unit="share"),)

    def __init__(self, references, settings=None):
        super().__init__(references)
        self.settings = settings or ShoutSettings()

    def values(self, candidates: Candidates):
        return np.array([[self.settings.mark in caption] for caption in candidates.captions], float)
'''


def install(folder: Path, entry: str) -> dict[str, str]:
    """A package as pip would install it, and the environment in which it is found."""
    (folder / "shout.py").write_text(MODULE)
    about = folder / "shout-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: shout\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[cutline.metrics]\nshout = {entry}\n")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}


def score(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "p.json").write_text(json.dumps({"1": "a dog!", "2": "a cat?"}))
    (folder / "r.json").write_text(json.dumps({"1": ["a dog"], "2": ["a cat"]}))
    command = [sys.executable, "-m", "cutline.cli", "score", "p.json", "r.json", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_package_adds_a_metric(tmp_path: Path) -> None:
    environment = install(tmp_path, "shout:Shout")
    done = score(tmp_path, environment, "--metrics", "shout,bleu1", "--json", "--set", "shout.mark=?")
    assert done.returncode == 0, done.stderr
    shout, bleu = json.loads(done.stdout)["scores"]
    assert shout["value"] == 0.5
    assert shout["info"] == {
        "name": "shout",
        "label": "Shouting",
        "meaning": "Share of captions with an exclamation mark.",
        "unit": "share",
        "higher_is_better": True,
    }
    assert bleu["metric"] == "bleu1"
    assert "Shouting %" in score(tmp_path, environment, "--metrics", "shout").stdout


def test_an_entry_point_that_is_no_metric_is_an_error(tmp_path: Path) -> None:
    environment = install(tmp_path, "shout:ShoutSettings")
    done = score(tmp_path, environment, "--metrics", "shout")
    assert done.returncode == 2
    assert "The metric shout of the package shout can't be used: it defines no subclass of" in done.stderr
    assert score(tmp_path, environment, "--metrics", "bleu1").returncode == 0  # the others still work
