"""Perceptual hashes of image files, cached by the SHA-256 of their bytes, so that no file is decoded twice for them."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import threading

from cutline.core.cache import cache_root
from cutline.images.open import MAX_PIXELS, ImageFacts, decode
from cutline.images.perceptual import PerceptualHash, perceptual_hash

#: Raised when the hash is computed in another way, or holds more.
_VERSION = 1

_TABLE = f"""
create table if not exists looks{_VERSION} (
    sha256 blob primary key, width integer, height integer, suffix text, hash blob, colours blob
) without rowid
"""


class PerceptualHashCache:
    """Sizes and perceptual hashes, in ``looks.sqlite`` in the user's cache: about 200 bytes per image. Thread-safe.

    A file is read and hashed each time, so a changed or damaged file is decoded again. Where the cache can't be
    written, files are decoded each time.

    Attributes:
        decoded: how many files were decoded rather than found in the cache.
    """

    def __init__(self) -> None:
        self.decoded = 0
        self._lock = threading.Lock()
        path = cache_root() / "looks.sqlite"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = self._open(str(path))
        except (OSError, sqlite3.Error):  # a home that can't be written, or a damaged file
            self._db = self._open(":memory:")

    def get(self, data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> tuple[ImageFacts, PerceptualHash]:
        """Facts and hash of an image, decoded from its file's bytes to the last pixel unless they are in the cache.

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
        facts, hashed = ImageFacts(digest, *picture.size, suffix), perceptual_hash(picture)
        row = (bytes.fromhex(digest), *picture.size, suffix, hashed.hash.to_bytes(8, "big"), hashed.colours)
        with self._lock:
            self.decoded += 1
            with contextlib.suppress(sqlite3.Error):  # a full disk, or another process that writes long
                self._db.execute(f"insert or replace into looks{_VERSION} values (?,?,?,?,?,?)", row)
        return facts, hashed

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> PerceptualHashCache:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _find(self, digest: str) -> tuple[ImageFacts, PerceptualHash] | None:
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
        return ImageFacts(digest, width, height, suffix), PerceptualHash(int.from_bytes(bits, "big"), colours)

    @staticmethod
    def _open(path: str) -> sqlite3.Connection:
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = off")  # what a crash of the machine loses is decoded again
        database.execute(_TABLE)
        return database
