"""Append-only JSON-lines files that survive a kill at any byte.

A record counts when it is whole. A kill in the middle of a write leaves a torn last line; it is cut off before
anything is appended, so two records can never be glued together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from cutline.core.errors import CutlineError, DataError
from cutline.core.files import lock


def read(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yields the complete records of a file; a torn last line is skipped.

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
                        f"{path}, line {number} is not JSON: {error}.", "Fix or delete that line."
                    ) from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number} is not a JSON object.", "One object {…} belongs on each line.")
            yield row


def cut_torn_tail(path: str | Path) -> None:
    """Cuts a torn last line off, in place; a whole record without a line break gets one.

    A file that is absent or whole is left as it is.
    """
    path = Path(path)
    if path.exists():
        with open(path, "rb+") as file:
            _repair_tail(file)


def _repair_tail(file: BinaryIO) -> None:
    end = position = file.seek(0, os.SEEK_END)
    while position > 0:
        step = min(65536, position)
        file.seek(position - step)
        newline = file.read(step).rfind(b"\n")
        if newline >= 0:
            position = position - step + newline + 1
            break
        position -= step
    if position == end:
        return
    file.seek(position)
    try:  # a part of an object is never valid JSON
        whole = isinstance(json.loads(file.read()), dict)
    except ValueError:
        whole = False
    if whole:
        file.write(b"\n")
    else:
        file.truncate(position)


def dumps(row: Any) -> str:
    """JSON on one line, readable in any script; what UTF-8 can't hold (odd bytes in a file's name) is escaped."""
    text = json.dumps(row, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(row)
    return text


class Appender:
    """Appends records to a file, in one write where the system allows; cuts a torn tail off first.

    Example:
        with Appender("predictions.jsonl") as out:
            out.write([prediction.to_json()])

    Raises:
        CutlineError: another process is appending to the same file.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "ab+", buffering=0)  # noqa: SIM115 - closed by __exit__
        try:
            lock(
                self._file,
                busy=CutlineError(f"Another process is writing {self.path}.", "Wait for it, or write to another file."),
            )
            _repair_tail(self._file)
        except BaseException:
            self._file.close()
            raise

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends the rows and hands them to the operating system at once."""
        rest = memoryview("".join(dumps(row) + "\n" for row in rows).encode())
        while rest:  # a nearly full disk takes a part and says so only at the next write
            rest = rest[self._file.write(rest) :]

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Appender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
