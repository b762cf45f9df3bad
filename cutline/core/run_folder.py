"""The run folder: all files of one experiment, and the markers of its finished stages.

runs/<name>/
  recipe.toml          the resolved recipe: defaults ← file ← --set
  run.json             versions, seed, hash of the data, git revision, command
  stages/<stage>.json  fingerprint of each stage's inputs; "finished" is written last
  dataset/             the prepared dataset (unless [data] dataset puts it elsewhere)
  train/log.jsonl      loss and validation by step
  train/checkpoints/   what an interrupted training resumes from
  model/               the best checkpoint
  predictions.jsonl  scores.json  per_image.jsonl  report.html
  superseded/          what a changed recipe replaced; nothing is deleted
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cutline.core.errors import CutlineError
from cutline.core.files import locked, write_atomically

#: Packages whose version can change a result.
RECORDED = ("cutline", "torch", "transformers", "accelerate", "peft", "bitsandbytes", "numpy", "pillow", "datasets")


#: Folder of the retrieval stage in a run.
RETRIEVAL = "retrieval"


class RunFolder:
    """One run's folder. Opening it creates nothing but the folder."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise CutlineError(f"{error.filename} is a file.", "Give a folder with --out.") from error

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder, so that no second process works in it.

        Raises:
            CutlineError: another process holds the folder.
        """
        busy = CutlineError(
            f"Another cutline process is using {self.path}.", "Wait for it, or give another folder with --out."
        )
        with locked(self / ".lock", busy):
            yield

    def describe(self, recipe_toml: str, seed: int) -> None:
        """Writes ``recipe.toml`` and ``run.json``."""
        write_atomically(self / "recipe.toml", recipe_toml)
        self.note(
            versions=versions(),
            seed=seed,
            git=git_revision(),
            command=sys.argv[1:],
            python=platform.python_version(),
            machine=platform.machine(),
            cpus=os.cpu_count(),
        )

    def facts(self) -> dict[str, Any]:
        """The content of ``run.json``."""
        path = self / "run.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def note(self, **facts: Any) -> None:
        """Adds facts to ``run.json``."""
        write_atomically(self / "run.json", json.dumps(self.facts() | facts, indent=2) + "\n")

    def stage(self, name: str) -> dict[str, Any]:
        """The marker of a stage: fingerprint, finished, seconds and the stage's own facts; ``{}`` if it never began."""
        path = self / f"stages/{name}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def is_finished(self, name: str, fingerprint: str) -> bool:
        known = self.stage(name)
        return bool(known.get("finished")) and known.get("fingerprint") == fingerprint

    def begin(self, name: str, fingerprint: str, outputs: tuple[str, ...]) -> Path | None:
        """Marks a stage as begun; outputs of a different recipe are moved aside.

        Returns:
            The folder that superseded outputs were moved to, or None when the stage starts or resumes.
        """
        known = self.stage(name)
        moved = None
        present = [output for output in outputs if (self / output).exists()]
        if known and known.get("fingerprint") != fingerprint and present:
            moved = self._superseded(f"{name}-{known['fingerprint'][:8]}-{int(time.time())}")
            for output in present:
                target = moved / output
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(self / output, target)
            write_atomically(moved / f"{name}.json", json.dumps(known, indent=2) + "\n")
        spent = known.get("seconds", 0.0) if known.get("fingerprint") == fingerprint else 0.0
        started = known.get("started") if known.get("fingerprint") == fingerprint else None
        marker = {"fingerprint": fingerprint, "finished": False, "seconds": spent, "started": started or time.time()}
        self._mark(name, marker)
        return moved

    def _superseded(self, name: str) -> Path:
        """A new folder under ``superseded/``."""
        names = (name, *(f"{name}-{number}" for number in range(2, 1000)))
        return next(path for path in (self / f"superseded/{name}" for name in names) if not path.exists())

    def finish(self, name: str, seconds: float, **facts: Any) -> None:
        """Marks a stage as finished. Call it last, when all its outputs are on disk."""
        known = self.stage(name)
        self._mark(name, known | facts | {"finished": True, "seconds": round(known.get("seconds", 0.0) + seconds, 1)})

    def _mark(self, name: str, marker: Mapping[str, Any]) -> None:
        write_atomically(self / f"stages/{name}.json", json.dumps(marker, indent=2) + "\n")


def versions() -> dict[str, str]:
    """Versions of the installed packages that can change a result."""
    installed = {}
    for name in RECORDED:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def git_revision() -> str | None:
    """The revision of the folder that the command was started in, with "+" if it has changes; None outside git."""
    try:
        revision = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        changes = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return revision.stdout.strip() + ("+" if changes.stdout.strip() else "")
