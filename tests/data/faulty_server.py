"""A web server with every fault there is, in threads of the test; paths say what happens to them.

/good/<name>            the file
/<status>/<anything>    that status
everything else         a method of ``Faults`` by its first part
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import socket
import socketserver
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

#: Parts of a path that are no name of a method.
FOREIGN = {"l%E9tters2": "good"}

EXPLOSIVE = gzip.compress(bytes(4_000_000))


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """
    Attributes:
        asked: path → number of requests.
        connections: number of connections that were opened; ``most``: of requests at one time.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, files: Mapping[str, bytes]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = dict(files)
        self.asked: Counter[str] = Counter()
        self.times: dict[str, list[float]] = {}
        self.connections = 0
        self.now = self.most = 0
        self.lock = threading.Lock()
        self.down = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that hang up are what this is about


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    timeout = 20

    def log_message(self, *args: object) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.server.lock:
            self.server.connections += 1

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.asked[self.path] += 1
            self.server.times.setdefault(self.path, []).append(time.monotonic())
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        try:
            if self.server.down:
                self.fault_reset("")
                return
            first, _, rest = self.path.lstrip("/").partition("/")
            rest = rest.partition("?")[0]
            if first.isdigit():
                self.answer(int(first), b"an error")
            else:
                act: Callable[[str], None] = getattr(self, f"fault_{FOREIGN.get(first, first)}")
                act(rest.removeprefix("100%25/"))
        finally:
            with self.server.lock:
                self.server.now -= 1

    def answer(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def file(self, name: str) -> bytes:
        return self.server.files[name]

    def fault_good(self, name: str) -> None:
        self.answer(200, self.file(name))

    def fault_slow(self, name: str) -> None:
        time.sleep(0.05)
        self.answer(200, self.file(name))

    def fault_busy(self, name: str) -> None:
        """429 with Retry-After, then fine."""
        if self.server.asked[self.path] == 1:
            self.answer(429, b"", Retry_After="1")
        else:
            self.answer(200, self.file(name))

    def fault_patience(self, name: str) -> None:
        """503 that asks for an hour."""
        self.answer(503, b"", Retry_After="3600")

    def fault_once(self, name: str) -> None:
        """500, then fine."""
        self.answer(*((500, b"") if self.server.asked[self.path] == 1 else (200, self.file(name))))

    def fault_hang(self, name: str) -> None:
        time.sleep(3)

    def fault_drip(self, name: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        for _ in range(30):
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.1)

    def fault_reset(self, name: str) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def fault_resetonce(self, name: str) -> None:
        if self.server.asked[self.path] == 1:
            self.fault_reset(name)
        else:
            self.answer(200, self.file(name))

    def fault_short(self, name: str) -> None:
        """Half of the body that was promised."""
        body = self.file(name)
        self.answer(200, body[: len(body) // 2], length=len(body))
        self.close_connection = True

    def fault_shortonce(self, name: str) -> None:
        if self.server.asked[self.path] == 1:
            self.fault_short(name)
        else:
            self.answer(200, self.file(name))

    def fault_endless(self, name: str) -> None:
        """Chunks without end."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(10_000):
                self.wfile.write(b"10000\r\n" + b"\xff" * 0x10000 + b"\r\n")

    def fault_promise(self, name: str) -> None:
        """Announces more than anybody wants."""
        self.answer(200, b"", length=10**12)
        self.close_connection = True

    def fault_loop(self, name: str) -> None:
        self.answer(302, b"", Location=self.path)

    def fault_moved(self, name: str) -> None:
        self.answer(301, b"gone there", Location=f"/good/{name}")

    def fault_method(self, name: str) -> None:
        """307 and 308 in a row, each with a page of its own."""
        step, _, name = name.partition("/")
        if step == "a":
            self.answer(307, b"x" * 500, Location=f"/method/b/{name}")
        else:
            self.answer(308, b"x" * 500, Location=f"/good/{name}")

    def fault_letters(self, name: str) -> None:
        """To an address with bytes that are no UTF-8."""
        self.answer(302, b"", Location="/l\xe9tters2/100%/" + name)

    def fault_packed(self, name: str) -> None:
        """Compressed though nobody asked for it."""
        self.answer(200, gzip.compress(self.file(name)), Content_Encoding="gzip")

    def fault_explosive(self, name: str) -> None:
        """A few bytes that unpack to very many."""
        self.answer(200, EXPLOSIVE, Content_Encoding="gzip")

    def fault_chunked(self, name: str) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        body = self.file(name)
        for part in (body[:100], body[100:]):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def fault_old(self, name: str) -> None:
        """As servers of the nineties: no length, the end of the connection ends the body."""
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + self.file(name))
        self.close_connection = True

    def fault_partial(self, name: str) -> None:
        self.answer(206, self.file(name)[:50], Content_Range="bytes 0-49/100")

    def fault_lostforever(self, name: str) -> None:
        """404 with a page that doesn't end, of an announced length that nobody would take of an image."""
        self.send_response(404)
        self.send_header("Content-Length", str(10**12))
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(10_000):
                self.wfile.write(b"x" * 0x10000)

    def fault_date(self, name: str) -> None:
        """503 until a date that is past, then fine."""
        if self.server.asked[self.path] == 1:
            self.answer(503, b"", Retry_After="Sat, 01 Jan 2000 00:00:00 GMT")
        else:
            self.answer(200, self.file(name))

    def fault_odd(self, name: str) -> None:
        """503 with a Retry-After that is no number, though str.isdigit says so; then fine."""
        if self.server.asked[self.path] == 1:
            self.answer(503, b"", Retry_After="\xb2")
        else:
            self.answer(200, self.file(name))

    def fault_reserved(self, name: str) -> None:
        self.answer(200, self.file(name), TDM_Reservation="1")

    def fault_previews(self, name: str) -> None:
        self.answer(200, self.file(name), X_Robots_Tag="max-image-preview: large, none")

    def fault_elsewhere(self, name: str) -> None:
        """To a scheme that must not be followed."""
        self.answer(302, b"", Location="file:///etc/passwd")

    def fault_nowhere(self, name: str) -> None:
        self.answer(302, b"", Location="http://[nobody/")

    def fault_noai(self, name: str) -> None:
        self.answer(200, self.file(name), X_Robots_Tag="noai, noimageai")

    def fault_otherbot(self, name: str) -> None:
        self.answer(200, self.file(name), X_Robots_Tag="otherbot: noai")

    def fault_nonsense(self, name: str) -> None:
        self.wfile.write(b"not http at all\r\n\r\n")
        self.close_connection = True


@contextlib.contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[Server]:
    with Server(files) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
