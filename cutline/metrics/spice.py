"""SPICE, by its authors' own program, and SPIDEr, the mean of SPICE and CIDEr-D.

Anderson et al. 2016, "SPICE: Semantic Propositional Image Caption Evaluation": F1 of the objects, attributes and
relations that a caption and its references name. Liu et al. 2017 for SPIDEr.

The program is Java (8 or 11) and needs ``spice-1.0.jar``, which ``pip install pycocoevalcap`` brings, and in its
``lib/`` the two jars of Stanford CoreNLP 3.6.0, which no package brings. It runs in a process of its own that is given
the captions' tokens in a file, has a time limit, and is never allowed to download anything. The other scores never
depend on it. Each baseline is another run of it: ``cache`` makes those cheap.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from cutline.core.config import Section
from cutline.core.errors import ScoreError
from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, MeanMetric, References
from cutline.metrics.cider import Cider

_JAR = "spice-1.0.jar"
_CORENLP = ("lib/stanford-corenlp-3.6.0.jar", "lib/stanford-corenlp-3.6.0-models.jar")
_WITHOUT = "or leave spice out; no other score needs it."


class SpiceSettings(Section):
    folder: str | None = Field(
        None, description="folder with spice-1.0.jar and lib/; by default the one in the installed pycocoevalcap"
    )
    java: str = Field("java", description="the Java program to run, version 8 or 11")
    memory: str = Field("8G", pattern=r"^\d+[kKmMgG]$", description="memory limit of Java")
    timeout_s: float = Field(3600, gt=0, description="time limit for one set of captions, in seconds")
    cache: str | None = Field(None, description="folder for a cache of parsed captions; none by default")


class Spice(MeanMetric):
    settings_type = SpiceSettings
    scores = (
        ScoreInfo("spice", "SPICE", "Agreement in objects, attributes and relations, as an F score."),
        ScoreInfo("spider", "SPIDEr", "Mean of SPICE and CIDEr-D."),
    )

    def __init__(self, references: References, settings: SpiceSettings | None = None):
        super().__init__(references)
        self._settings = settings or SpiceSettings()
        self._folder, self._java = _find_program(self._settings)
        self._cider = Cider(references)

    @classmethod
    def check(cls, settings: SpiceSettings) -> None:
        _find_program(settings)

    def values(self, candidates: Candidates) -> Floats:
        tokens = iter(self.references.tokens)
        rows = [
            {"image_id": image, "test": caption, "refs": [next(tokens) for _ in range(many)]}
            for image, (caption, many) in enumerate(
                zip(candidates.tokens, self.references.per_image.tolist(), strict=True)
            )
        ]
        spice = self._run(rows)
        return np.stack([spice, (spice + self._cider.values(candidates)[:, 0]) / 2], axis=1)

    def _run(self, rows: list[dict[str, Any]]) -> Floats:
        """SPICE's F1 of each row, [n]."""
        with tempfile.TemporaryDirectory(prefix="cutline-spice-") as folder:
            given, made = Path(folder) / "captions.json", Path(folder) / "scores.json"
            given.write_text(json.dumps(rows), encoding="utf-8")
            command = [self._java, f"-Xmx{self._settings.memory}", "-jar", _JAR, str(given)]
            if self._settings.cache:
                cache = Path(self._settings.cache).absolute()
                cache.mkdir(parents=True, exist_ok=True)
                command += ["-cache", str(cache)]
            self._call([*command, "-out", str(made), "-subset", "-silent"], Path(folder) / "log.txt")
            return _read(made, len(rows))

    def _call(self, command: list[str], log: Path) -> None:
        limit = self._settings.timeout_s
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired as error:
                raise ScoreError(
                    f"spice took longer than {limit:g} s.", f"Allow more time ([score.spice] timeout_s), {_WITHOUT}"
                ) from error
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if code:
            printed = " ".join(log.read_text(encoding="utf-8", errors="replace").split())[-300:]
            raise ScoreError(
                f"spice's Java program failed (exit code {code}): {printed or 'it printed nothing'}",
                f"It needs Java 8 or 11 and {self._settings.memory} of memory. Fix that, {_WITHOUT}",
            )

    def facts(self) -> dict[str, str]:
        return {"program": _JAR.removesuffix(".jar"), "corenlp": "3.6.0", "df": f"references({len(self.references)})"}


def _find_program(settings: SpiceSettings) -> tuple[Path, str]:
    """The folder with SPICE's jars, and Java."""
    folder = _find_jars(settings.folder)
    java = shutil.which(settings.java)
    if java is None:
        raise ScoreError(f"spice needs Java, and {settings.java} was not found.", f"Install it, {_WITHOUT}")
    return folder, java


def _find_jars(folder: str | None) -> Path:
    """The folder with SPICE's jars; nothing is downloaded."""
    if folder is None:
        package = importlib.util.find_spec("pycocoevalcap")
        folders = list(package.submodule_search_locations or ()) if package else []
        if not folders:
            raise ScoreError(
                f"spice needs {_JAR}, which was not found.",
                f"pip install pycocoevalcap, or give its folder ([score.spice] folder), {_WITHOUT}",
            )
        folder = f"{folders[0]}/spice"
    found = Path(folder).absolute()
    missing = [name for name in (_JAR, *_CORENLP) if not (found / name).is_file()]
    if missing:
        raise ScoreError(
            f"spice needs {', '.join(missing)} in {found}.",
            f"Copy them there from pycocoevalcap and Stanford CoreNLP 3.6.0 (2015-12-09), {_WITHOUT}",
        )
    return found


def _read(path: Path, images: int) -> Floats:
    """F1 by image, from the program's output; a caption without anything to compare counts as 0."""
    try:
        found = {int(row["image_id"]): row["scores"]["All"]["f"] for row in json.loads(path.read_text("utf-8"))}
        values = np.array([float(found[image] or 0.0) for image in range(images)])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ScoreError(
            f"spice's program returned no score for some images ({type(error).__name__}: {error}).",
            f"Run it by hand to see why, {_WITHOUT}",
        ) from error
    values[np.isnan(values)] = 0.0
    return values
