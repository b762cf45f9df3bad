"""Files that are replaced whole, and files that one process holds at a time."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from cutline.core.errors import CutlineError


@contextmanager
def replaced(path: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` to write to, which replaces it at the end.

    A reader sees the old file or the new one, never a part. After an error, or when nothing was written, the old file
    stays and the temporary one is removed. Processes and threads may replace the same file; the last one wins.

    Args:
        durable: flush the file to the disk first, so that a power cut can't leave an empty one. Costs milliseconds;
            turn it off for files that can be computed again.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # a hash of the name: a suffix could make a long name too long
    name = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    temporary = path.with_name(f".{name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        yield temporary
        if durable:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:  # also a full disk, or a folder of that name
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: str | Path, data: bytes | str, *, durable: bool = True) -> None:
    """Writes a whole file so that a reader sees the old one or the new one, never a part.

    Args:
        durable: see :func:`replaced`.
    """
    path = Path(path)
    raw = data.encode(errors="surrogateescape") if isinstance(data, str) else data
    if path.exists() and not (path.is_file() or path.is_dir()):
        path.write_bytes(raw)  # /dev/null or a pipe is written to, not replaced
        return
    with replaced(path, durable=durable) as temporary:
        temporary.write_bytes(raw)


@contextmanager
def locked(path: str | Path, busy: CutlineError | None = None) -> Iterator[None]:
    """Holds a lock file; the lock of a killed process is released. The file stays.

    Args:
        busy: raised at once when another process holds the lock; None waits for it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        lock(file, busy)
        yield


def lock(file: IO[Any], busy: CutlineError | None = None) -> None:
    """Locks an open file until it is closed. Does nothing on a file system without locks.

    Args:
        busy: raised at once when another process holds the lock; None waits for it.
    """
    from filelock import lock_descriptor

    try:
        is_ours = lock_descriptor(file.fileno(), blocking=busy is None)
    except OSError:
        return
    if not is_ours and busy is not None:
        raise busy
