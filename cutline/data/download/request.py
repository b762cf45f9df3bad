"""One request: what curl is told, what it says while the answer comes in, and what a failure is called."""

from __future__ import annotations

import datetime
import email.utils
import re
import socket
import ssl
import time
from pathlib import Path
from typing import Any, Protocol

from cutline.core.errors import CutlineError
from cutline.data import addresses

#: Class of a failure → whether it may pass by itself, so that trying again makes sense.
IS_TRANSIENT = {
    "bad_address": False,
    "private_address": False,
    "not_found": False,
    "refused": False,
    "http_error": False,
    "server_error": True,
    "too_many_requests": True,
    "redirects": False,
    "opted_out": False,
    "too_large": False,
    "dns": True,
    "connection": True,
    "cut_off": True,
    "timeout": True,
    "tls": False,
}

#: X-Robots-Tag directives that have a colon themselves.
_WITH_VALUES = ("max-snippet", "max-image-preview", "max-video-preview", "unavailable_after")

#: Bytes of an error's or redirect's page that are read, so that the connection can be kept.
_LONGEST_PAGE = 1 << 20

REDIRECTS = (301, 302, 303, 307, 308)


class FetchPolicy(Protocol):
    """The part of the download settings that fetching reads; see ``steps/download.py`` for what each means."""

    @property
    def connections(self) -> int: ...
    @property
    def per_host(self) -> int: ...
    @property
    def connect_timeout_s(self) -> float: ...
    @property
    def read_timeout_s(self) -> float: ...
    @property
    def timeout_s(self) -> float: ...
    @property
    def max_bytes(self) -> int: ...
    @property
    def max_redirects(self) -> int: ...
    @property
    def tries(self) -> int: ...
    @property
    def backoff_s(self) -> float: ...
    @property
    def longest_wait_s(self) -> float: ...
    @property
    def private(self) -> bool: ...
    @property
    def opt_out(self) -> list[str]: ...
    @property
    def user_agent(self) -> str: ...
    @property
    def proxy(self) -> str: ...


class Transfer:
    """One request under way: curl calls the methods as lines and blocks come in.

    Attributes:
        status: of the answer; 0 before there is one.
        body: what came, of an answer with status 200.
        location: where a redirect leads.
        retry_after: seconds that the server asks to wait.
        fault: reason and detail of what was broken off here; None when nothing was.
        told: the status says it all, and the rest of an error's long page wasn't waited for.
    """

    __slots__ = (
        "_curl",
        "_manners",
        "_unread",
        "body",
        "fault",
        "location",
        "retry_after",
        "sockets",
        "status",
        "told",
    )

    def __init__(self, curl: Any, handle: Any, target: str, policy: FetchPolicy):
        self._curl, self._manners = curl, policy
        self.body = bytearray()
        self.status = 0
        self.location = ""
        self.sockets: list[socket.socket] = []
        self.retry_after: float | None = None
        self.fault: tuple[str, str] | None = None
        self.told = False
        self._unread = 0
        handle.setopt(curl.URL, target)
        handle.setopt(curl.HEADERFUNCTION, self.header)
        handle.setopt(curl.WRITEFUNCTION, self.block)
        handle.setopt(curl.OPENSOCKETFUNCTION, self.open_socket)

    def open_socket(self, purpose: int, place: Any) -> Any:
        """The address is judged as it is connected to: what a name led to a moment ago doesn't count."""
        if not (self._manners.private or self._manners.proxy or addresses.is_public(str(place.addr[0]))):
            self.fault = ("private_address", f"{place.addr[0]} is not on the open internet")
            return self._curl.SOCKET_BAD
        self.fault = None  # a host with several addresses: this one is good
        self.sockets.append(socket.socket(place.family, place.socktype, place.protocol))
        return self.sockets[-1]

    def close_sockets(self) -> None:
        """Ours: pycurl made copies, which live on with the connection."""
        for opened in self.sockets:
            opened.close()

    def header(self, line: bytes) -> int | None:
        if line.startswith(b"HTTP/"):
            parts = line.split(None, 2)
            self.status = int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0
            self.location, self.retry_after = "", None
            return None
        name, _, value = line.partition(b":")
        name = name.strip().lower()
        if name == b"location":
            self.location = value.strip().decode("utf-8", errors="surrogateescape")
        elif name == b"retry-after":
            self.retry_after = seconds(value.strip().decode("latin-1"))
        elif self.status == 200:
            return self._header_of_image(name, value.strip())
        return None

    def _header_of_image(self, name: bytes, value: bytes) -> int | None:
        directives = self._manners.opt_out
        if name == b"x-robots-tag":
            if found := opted_out(value.decode("latin-1"), directives, self._manners.user_agent):
                self.fault = ("opted_out", f"X-Robots-Tag: {found}")
        elif name == b"tdm-reservation" and value == b"1" and "tdm-reservation" in directives:
            self.fault = ("opted_out", "TDM-Reservation: 1")
        elif name == b"content-length" and value.isdigit() and int(value[:20]) > self._manners.max_bytes:
            self.fault = ("too_large", f"{int(value[:20]):,} bytes are more than max_bytes")
        return -1 if self.fault else None

    def block(self, data: bytes) -> int | None:
        if self.status != 200:  # an error's page is of no use, but reading it keeps the connection
            self._unread += len(data)
            self.told = self._unread > _LONGEST_PAGE
            return -1 if self.told else None
        self.body += data
        if len(self.body) > self._manners.max_bytes:
            self.fault = ("too_large", f"more than {self._manners.max_bytes:,} bytes")
            return -1
        return None


def opted_out(value: str, directives: list[str], user_agent: str) -> str:
    """Which of the directives an X-Robots-Tag header gives; "" for none.

    "otherbot: noai" is meant for otherbot, and so is what follows; "max-snippet: 5" names no bot; none is noindex.
    """
    product = re.split(r"[\s/(]", user_agent.strip(), maxsplit=1)[0].lower()
    meant = True
    said = set()
    for part in value.lower().split(","):
        name, colon, rest = part.partition(":")
        if colon and name.strip() not in _WITH_VALUES:
            meant, part = name.strip() in (product, "*"), rest
        if meant:
            said.add({"none": "noindex"}.get(part.strip(), part.strip()))
    return next((directive for directive in directives if directive in said), "")


def seconds(value: str) -> float | None:
    """Retry-After: seconds, or a date."""
    if value.isascii() and value.isdigit():
        return float(value[:20])
    try:
        date = email.utils.parsedate_to_datetime(value)
        return max(0.0, date.replace(tzinfo=date.tzinfo or datetime.UTC).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def classify_status(status: int) -> tuple[str, str]:
    detail = f"HTTP {status}"
    if status in (404, 410):
        return "not_found", detail
    if status in (401, 403, 451):
        return "refused", detail
    if status == 429:
        return "too_many_requests", detail
    if status in (408, 425) or status >= 500:
        return "server_error", detail
    return "http_error", detail


def classify_code(curl: Any, code: int, message: str) -> tuple[str, str]:
    """Curl's error as one of ours."""
    detail = " ".join(message.split()) or f"curl error {code}"
    if code in (curl.E_COULDNT_RESOLVE_HOST, curl.E_COULDNT_RESOLVE_PROXY):
        return "dns", detail
    if code == curl.E_OPERATION_TIMEDOUT:
        return "timeout", detail
    if code == curl.E_PARTIAL_FILE:
        return "cut_off", detail
    if code == curl.E_URL_MALFORMAT:
        return "bad_address", detail
    if code == curl.E_FILESIZE_EXCEEDED:
        return "too_large", detail
    if code in (curl.E_PEER_FAILED_VERIFICATION, curl.E_SSL_CACERT_BADFILE, curl.E_SSL_ISSUER_ERROR):
        return "tls", detail
    return "connection", detail


def new_handle(curl: Any, policy: FetchPolicy) -> Any:
    handle = curl.Curl()
    settings = {
        curl.NOSIGNAL: 1,
        curl.FOLLOWLOCATION: 0,
        curl.HTTP_VERSION: curl.CURL_HTTP_VERSION_1_1,
        curl.PROTOCOLS: curl.PROTO_HTTP | curl.PROTO_HTTPS,
        curl.CONNECTTIMEOUT_MS: int(policy.connect_timeout_s * 1000),
        curl.TIMEOUT_MS: int(policy.timeout_s * 1000),
        curl.LOW_SPEED_LIMIT: 1,
        curl.LOW_SPEED_TIME: max(1, round(policy.read_timeout_s)),
        curl.BUFFERSIZE: 262144,
        curl.ACCEPT_ENCODING: "identity",  # and what comes compressed all the same is unpacked
        curl.USERAGENT: policy.user_agent,
        curl.HTTPHEADER: ["Accept: image/avif,image/webp,image/png,image/jpeg,image/*;q=0.8,*/*;q=0.5"],
        curl.PROXY: policy.proxy,  # "" also switches off what the environment says
    }
    for option, value in settings.items():
        handle.setopt(option, value)
    paths = ssl.get_default_verify_paths()  # the system's, or what SSL_CERT_FILE and SSL_CERT_DIR name
    if paths.cafile and Path(paths.cafile).is_file():
        handle.setopt(curl.CAINFO, paths.cafile)
    elif paths.capath and Path(paths.capath).is_dir():
        handle.setopt(curl.CAPATH, paths.capath)
    return handle


def load_curl() -> Any:
    try:
        import pycurl
    except ImportError as error:
        raise CutlineError(
            "Downloading needs pycurl, which is not installed.", "Install it: pip install 'cutline[download]'."
        ) from error
    return pycurl
