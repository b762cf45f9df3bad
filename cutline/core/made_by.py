"""Notes on how a file or folder was made, so that work never resumes with another model or other settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cutline.core.errors import CutlineError
from cutline.core.files import write_atomically


def check_made_by(
    note: Path, made_by: Mapping[str, Any], output: Path, remedy: str, *, resumes: bool | None = None
) -> None:
    """Writes the note when work begins; when it resumes, checks that nothing has changed since.

    Args:
        note: the JSON file.
        made_by: everything that the output depends on.
        output: the file or folder, for the message.
        remedy: what to do when something has changed.
        resumes: whether there is output to resume; by default, whether the note exists.

    Raises:
        CutlineError: the output was made with something else.
    """
    now = json.loads(json.dumps(made_by))  # as it is after a round trip
    if resumes is None:
        resumes = note.exists()
    if not resumes:
        write_atomically(note, json.dumps(now, indent=2) + "\n")
        return
    before = json.loads(note.read_text(encoding="utf-8")) if note.exists() else None
    if before is None:
        raise CutlineError(f"{output} was made by something else.", remedy)
    if before != now:
        raise CutlineError(f"{output} was made differently: {'; '.join(_differences(before, now))}.", remedy)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What has changed; only the key where a value is a fingerprint or long."""
    differences = []
    for key in {**before, **now}:
        one, other = before.get(key), now.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            differences += _differences(one, other)
        elif one != other:
            short = not isinstance(one, str) or len(one) < 16
            differences.append(f"{key} was {json.dumps(one)}, is {json.dumps(other)}" if short else f"another {key}")
    return differences
