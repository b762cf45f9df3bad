"""Slow results kept in a file, so that a killed job doesn't start over."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

from cutline.core.errors import DataError


class Remembered:
    """JSON values by any text, in an SQLite file.

    Raises:
        DataError: the file is damaged.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = normal")
            self._db.execute("create table if not exists known (key blob primary key, value text) without rowid")
        except sqlite3.DatabaseError as error:
            raise DataError(f"{path} is damaged: {error}.", "Delete it; nothing else is lost.") from error

    def get(self, key: str) -> Any:
        """The value; None when there is none."""
        row = self._db.execute("select value from known where key = ?", (_digest(key),)).fetchone()
        return json.loads(row[0]) if row else None

    def put(self, key: str, value: Any) -> None:
        self._db.execute("insert or replace into known values (?, ?)", (_digest(key), json.dumps(value)))

    def close(self) -> None:
        self._db.close()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
