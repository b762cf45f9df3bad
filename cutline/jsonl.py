"""Append-only JSON-lines files that survive a kill at any byte.

A record counts when its line is complete. A kill in the middle of a write leaves a torn last line; it is cut off before
anything is appended, so two records can never be glued together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from cutline.errors import DataError


def read(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yields the complete records of a file; a torn last line is passed over.

    Raises:
        DataError: a line that is complete is not a JSON object.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                try:  # a file that another program wrote may lack the last line's end
                    row = json.loads(line)
                except ValueError:
                    return
            elif not line.strip():
                continue
            else:
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise DataError(
                        f"{path}, line {number} is not JSON: {error}.", "Mend or delete that line."
                    ) from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number} is not a JSON object.", "One object {…} belongs on each line.")
            yield row


def cut_torn_tail(path: str | Path) -> None:
    """Cuts an unfinished last line off, in place. A file that is absent or whole is left as it is."""
    path = Path(path)
    if not path.exists():
        return
    with open(path, "rb+") as file:
        end = file.seek(0, os.SEEK_END)
        position = end
        while position > 0:
            step = min(65536, position)
            file.seek(position - step)
            found = file.read(step).rfind(b"\n")
            if found >= 0:
                position = position - step + found + 1
                break
            position -= step
        if position != end:
            file.truncate(position)


class Appender:
    """Appends records to a file, each in one write; cuts a torn tail off first.

    Example:
        with Appender("predictions.jsonl") as out:
            out.write([prediction.to_json()])
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        cut_torn_tail(self.path)
        self._file: BinaryIO = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed by __exit__

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends the rows and hands them to the operating system at once."""
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        if lines:
            self._file.write(lines.encode())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Appender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_atomically(path: str | Path, data: bytes | str) -> None:
    """Writes a whole file so that a reader sees the old one or the new one, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data.encode() if isinstance(data, str) else data)
    os.replace(temporary, path)
