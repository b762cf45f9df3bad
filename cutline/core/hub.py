"""Checkpoints and data sets of the Hugging Face hub, also without a network.

Without a network, huggingface_hub retries each of a checkpoint's requests up to five times, with growing waits. So the
connection is tried once, and if it fails, the copy in the hub's cache is opened.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from functools import cache
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies

logger = logging.getLogger(__name__)

#: Seconds for the name server and the hub together to answer.
TIMEOUT_S = 5.0


def resolve(name: str, kind: Literal["model", "dataset"] = "model") -> str:
    """What to give to ``from_pretrained`` or ``load_dataset`` for a path or a hub name.

    Returns:
        The name itself. If the hub can't be reached, the folder of its copy in the hub's cache. The connection is not
        tried behind a proxy, nor when HF_HUB_OFFLINE is set, since the libraries then use the cache themselves.

    Raises:
        OSError: the hub can't be reached, and its cache holds no copy.
    """
    if Path(name).exists() or _is_offline() or {"https", "http", "all"} & getproxies().keys() or _is_reachable():
        return name
    copy = _cached_copy(name, kind)
    if copy is None:
        raise OSError(f"no connection to {_address().hostname}, and {name} is not in the hub's cache")
    return str(copy)


def _is_offline() -> bool:
    setting = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return setting.upper() in ("1", "ON", "YES", "TRUE")


def _address() -> SplitResult:
    return urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")


@cache
def _is_reachable() -> bool:
    address = _address()
    port = address.port or (80 if address.scheme == "http" else 443)
    if _answers(address.hostname or "", port):
        return True
    logger.warning(f"no connection to {address.hostname}: only what is in the hub's cache can be opened")
    return False


def _cached_copy(name: str, kind: str) -> Path | None:
    """The folder of a repository's main branch in the hub's cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / "--".join([f"{kind}s", *name.split("/")])
    try:
        revision = (folder / "refs/main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    copy = folder / "snapshots" / revision
    return copy if copy.is_dir() else None


def _answers(host: str, port: int) -> bool:
    """Whether a connection is made in time; in a thread, since a name lookup has no timeout."""
    answers: list[bool] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), TIMEOUT_S).close()
            answers.append(True)
        except OSError:
            pass

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    return bool(answers)
