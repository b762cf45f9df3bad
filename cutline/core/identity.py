"""Whether a checkpoint is still the one that something was made with."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cutline.core.run_folder import fingerprint


def identity(checkpoint: str) -> str:
    """Changes when the checkpoint does: by the sizes and times of its files; a hub name stands for itself."""
    folder = Path(checkpoint)
    folder = folder / "model" if (folder / "model").is_dir() else folder
    if not folder.is_dir():
        return checkpoint
    files = sorted(path for path in folder.iterdir() if path.is_file())
    small = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.suffix == ".json"}
    large = {path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.name not in small}
    return fingerprint(small, large)
