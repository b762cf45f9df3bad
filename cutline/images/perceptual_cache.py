"""How pictures look, remembered by the hash of their files' bytes, so that no file is decoded twice for it."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import threading

from cutline.core.cache import cache_root
from cutline.images.open import MAX_PIXELS, ImageFacts, decode
from cutline.images.perceptual import Look, look

#: Raised when a look is computed in another way, or says more.
_VERSION = 1

_TABLE = f"""
create table if not exists looks{_VERSION} (
    sha256 blob primary key, width integer, height integer, suffix text, hash blob, colours blob
) without rowid
"""


class PerceptualHashCache:
    """What files show, in ``looks.sqlite`` in the user's cache; about 200 bytes a picture. Safe to use from threads.

    A file is read and hashed each time, so one that was changed or damaged since is never taken for what it was. Where
    the cache can't be written, files are decoded each time.

    Attributes:
        decoded: how many files were decoded, rather than known.
    """

    def __init__(self) -> None:
        self.decoded = 0
        self._lock = threading.Lock()
        place = cache_root() / "looks.sqlite"
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            self._db = self._open(str(place))
        except (OSError, sqlite3.Error):  # a home that can't be written, or a damaged file
            self._db = self._open(":memory:")

    def get(self, data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> tuple[ImageFacts, Look]:
        """What an image file's bytes show when they are decoded to the last pixel.

        Args:
            name: for messages.

        Raises:
            ImageProblem: as ``images.decode``.
        """
        digest = hashlib.sha256(data).hexdigest()
        known = self._find(digest)
        if known and known[0].width * known[0].height <= max_pixels:
            return known
        picture, suffix = decode(data, name, max_pixels)
        facts, found = ImageFacts(digest, *picture.size, suffix), look(picture)
        row = (bytes.fromhex(digest), *picture.size, suffix, found.hash.to_bytes(8, "big"), found.colours)
        with self._lock:
            self.decoded += 1
            with contextlib.suppress(sqlite3.Error):  # a full disk, or another process that writes long
                self._db.execute(f"insert or replace into looks{_VERSION} values (?,?,?,?,?,?)", row)
        return facts, found

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> PerceptualHashCache:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _find(self, digest: str) -> tuple[ImageFacts, Look] | None:
        with self._lock:
            try:
                row = self._db.execute(
                    f"select width, height, suffix, hash, colours from looks{_VERSION} where sha256 = ?",
                    (bytes.fromhex(digest),),
                ).fetchone()
            except sqlite3.Error:
                return None
        if row is None:
            return None
        width, height, suffix, bits, colours = row
        return ImageFacts(digest, width, height, suffix), Look(int.from_bytes(bits, "big"), colours)

    @staticmethod
    def _open(place: str) -> sqlite3.Connection:
        database = sqlite3.connect(place, isolation_level=None, check_same_thread=False)
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = off")  # what a crash of the machine loses is decoded again
        database.execute(_TABLE)
        return database
