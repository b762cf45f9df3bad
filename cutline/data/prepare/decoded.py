"""Which image files were already decoded, so that a second run needn't: one line a file in ``checked.jsonl``."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from cutline.core.jsonl import Appender
from cutline.data.problem import Problem
from cutline.images.open import ImageFacts

#: Verdicts that hold as long as the file stays the same. The others depend on settings, permissions, decoders.
LASTING = ("empty", "not_an_image", "truncated", "corrupt")


class DecodedImages:
    """Remembers results by path, size and time of last change. Only offsets are in memory: about 150 bytes a file.

    Args:
        made: what was done to the images (``ImageStore.made``); results under another are not found.
    """

    def __init__(self, path: Path, made: str = ""):
        self._made = made
        self._out = Appender(path)  # cuts a torn line off
        self._in = open(path, "rb")  # noqa: SIM115 - closed by __exit__
        self._offsets: dict[int, int] = {}
        offset = 0
        for line in self._in:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a damaged line: its image is decoded again
                self._offsets[hash(json.loads(line)["path"])] = offset
            offset += len(line)

    def find(self, path: str, state: os.stat_result) -> ImageFacts | Problem | None:
        """The outcome on a file that hasn't changed since; None when it has, or was never seen."""
        offset = self._offsets.get(hash(path))
        if offset is None:
            return None
        self._in.seek(offset)
        row = json.loads(self._in.readline())
        if (row["path"], row["size"], row["mtime_ns"]) != (path, state.st_size, state.st_mtime_ns):
            return None
        if "reason" not in row and row.get("made", "") != self._made:
            return None
        if "reason" in row:
            return Problem(id="", reason=row["reason"], detail=row["detail"])
        return ImageFacts.from_json(row)

    def add(self, results: Iterable[tuple[str, os.stat_result, ImageFacts | Problem]]) -> None:
        """Writes results down, for the next run."""
        rows: list[dict[str, Any]] = []
        for path, state, outcome in results:
            row: dict[str, Any] = {"path": path, "size": state.st_size, "mtime_ns": state.st_mtime_ns}
            if isinstance(outcome, ImageFacts):
                rows.append(row | outcome.to_json() | ({"made": self._made} if self._made else {}))
            elif outcome.reason in LASTING:
                rows.append(row | {"reason": outcome.reason, "detail": outcome.detail})
        self._out.write(rows)

    def __enter__(self) -> DecodedImages:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._in.close()
        self._out.close()
