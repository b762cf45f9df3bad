"""Short hashes that identify settings and checkpoints."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def fingerprint(*parts: Any) -> str:
    """A short hash of anything that JSON can hold."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def checkpoint_fingerprint(checkpoint: str) -> str:
    """Changes when the sizes, times or JSON files of a checkpoint folder do; for the hub, the name itself."""
    folder = Path(checkpoint)
    folder = folder / "model" if (folder / "model").is_dir() else folder
    if not folder.is_dir():
        return checkpoint
    files = sorted(path for path in folder.iterdir() if path.is_file())
    small = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.suffix == ".json"}
    large = {path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.name not in small}
    return fingerprint(small, large)
