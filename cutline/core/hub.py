"""Whether the model hub can be reached, asked once, before a library tries for a minute.

huggingface_hub repeats each request that finds no network up to five times, with growing waits, and a checkpoint takes
several requests. Told that it is offline it looks into its cache at once, and says at once what isn't there.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

logger = logging.getLogger(__name__)


#: Seconds that name server and hub have together to answer.
PATIENCE_S = 5.0


def look_before(name: str | Path) -> None:
    """Before something is opened that may have to come from the hub: if the hub is out of reach, says so and has the
    libraries look into their cache only.

    Does nothing for what is a file or folder here, and nothing behind a proxy, which only the libraries can ask.
    """
    if not Path(name).exists() and not _is_offline() and not {"https", "http", "all"} & getproxies().keys():
        _look()


def _is_offline() -> bool:
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return said.upper() in ("1", "ON", "YES", "TRUE")


@cache
def _look() -> None:
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    host, port = address.hostname or "", address.port or (80 if address.scheme == "http" else 443)
    if _answers(host, port):
        return
    logger.warning(f"{host} can't be reached: of the hub only what is in its cache here will be found")
    os.environ["HF_HUB_OFFLINE"] = "1"
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:  # it was imported before, and has read the environment already
        constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]


def _answers(host: str, port: int) -> bool:
    """Whether a connection comes about in time; in a thread, since a silent name server knows no timeout."""
    found: list[bool] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), PATIENCE_S).close()
            found.append(True)
        except OSError:
            pass

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return bool(found)
