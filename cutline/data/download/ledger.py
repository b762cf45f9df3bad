"""The ledger of downloads: what became of each address, in ``downloads.sqlite`` in the dataset's folder.

A row is written when its image is on disk, and in one transaction, so a kill at any moment loses at most the work on
the addresses that were under way.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from cutline.core.errors import DataError
from cutline.images.open import ImageFacts

NAME = "downloads.sqlite"

_TABLE = """
create table if not exists downloads (
    address text primary key,
    state   text not null,     -- done | failed | again (to be tried in the next run)
    tries   integer not null,  -- requests in all, over all runs
    reason  text not null,     -- class of the error; '' when done
    detail  text not null,
    status  integer not null,  -- of the last HTTP answer; 0 for none
    bytes   integer not null,  -- of the body that came
    sha256  text not null,     -- of the body that came
    found_at text not null,    -- where it was in the end, after redirects
    made    text not null,     -- fingerprint of what was done to the image before it was stored
    facts   text not null,     -- JSON: the stored image
    time    real not null      -- seconds since 1970
) without rowid
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """One row of the ledger; the comments above say what each field is."""

    address: str
    state: str
    tries: int
    reason: str = ""
    detail: str = ""
    status: int = 0
    bytes: int = 0
    sha256: str = ""
    found_at: str = ""
    made: str = ""
    facts: ImageFacts | None = None


class DownloadLedger:
    """The ledger, open. One process at a time writes it (the dataset's folder is locked meanwhile)."""

    def __init__(self, path: Path, known: Path | None = None):
        """``known``: another ledger, which is asked for what stands not in this one, and isn't written."""
        self.path = path
        self._known = DownloadLedger(known) if known is not None and known.exists() else None
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = normal")  # a killed program loses nothing by it
            self._db.execute(_TABLE)
            columns = {row[1] for row in self._db.execute("pragma table_info(downloads)")}
        except sqlite3.DatabaseError as error:
            raise DataError(f"{path} is damaged: {error}.", "Delete it; all is then fetched again.") from error
        if not columns >= {*Download.__slots__, "time"}:
            self._db.close()
            raise DataError(f"{path} was written by another version of Cutline.", "Delete it; all is fetched again.")

    def find(self, address: str) -> Download | None:
        row = self._db.execute(
            "select address, state, tries, reason, detail, status, bytes, sha256, found_at, made, facts"
            " from downloads where address = ?",
            (address,),
        ).fetchone()
        if row is None:
            return self._known.find(address) if self._known else None
        names = Download.__slots__
        values = dict(zip(names, row, strict=True))
        values["facts"] = ImageFacts.from_json(json.loads(row[-1])) if row[-1] else None
        return Download(**values)

    def record(self, download: Download) -> None:
        """Writes one row, adding the tries of earlier runs."""
        facts = json.dumps(download.facts.to_json()) if download.facts else ""
        try:
            self._db.execute(
                "insert into downloads values (?,?,?,?,?,?,?,?,?,?,?,?) on conflict (address) do update set"
                " state=excluded.state, tries=downloads.tries+excluded.tries, reason=excluded.reason,"
                " detail=excluded.detail, status=excluded.status, bytes=excluded.bytes, sha256=excluded.sha256,"
                " found_at=excluded.found_at, made=excluded.made, facts=excluded.facts, time=excluded.time",
                (
                    download.address, download.state, download.tries, download.reason, download.detail,
                    download.status, download.bytes, download.sha256, download.found_at, download.made, facts,
                    time.time(),
                ),
            )  # fmt: skip
        except sqlite3.OperationalError as error:
            raise DataError(
                f"{self.path} can't be written: {error}.", "Free some space there and prepare again; it resumes."
            ) from error

    def again(self, address: str) -> None:
        """Lets a failed address be tried in the next run."""
        self._db.execute("update downloads set state = 'again' where address = ?", (address,))

    def retry_failed(self) -> int:
        """Lets every failed address be tried in this run; returns how many."""
        return self._db.execute("update downloads set state = 'again' where state = 'failed'").rowcount

    def absorb(self, path: Path) -> None:
        """Takes over all rows of another ledger."""
        self._db.execute("attach database ? as other", (str(path),))
        self._db.execute("insert or replace into downloads select * from other.downloads")
        self._db.execute("detach database other")

    def counts(self) -> Counter[str]:
        """Number of addresses by "done", "again", or the reason of the failure."""
        rows = self._db.execute(
            "select case state when 'failed' then reason else state end, count(*) from downloads group by 1"
        )
        return Counter(dict(rows.fetchall()))

    def close(self) -> None:
        if self._known:
            self._known.close()
        self._db.close()

    def __enter__(self) -> DownloadLedger:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
