"""A proxy in front of the object storage that injects faults: errors, missing responses and truncated bodies."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Self
from urllib.parse import urlsplit

FaultKind = Literal["503", "403", "no response", "dropped request", "partial body", "short body", "lost response"]
"""503, 403: an error response.
no response: the proxy reads the request and closes the connection after 30 s.
dropped request: the proxy closes the connection after half of the request body.
partial body: the connection is closed after half of the announced response body.
short body: half of the response body, with a Content-Length that matches the half.
lost response: the storage performs the request, and the proxy closes the connection without a response.
"""
UNLIMITED = 1 << 30
ERROR_RESPONSES = {
    "503": (503, "<Error><Code>SlowDown</Code></Error>"),
    "403": (403, "<Error><Code>AccessDenied</Code><AWSAccessKeyId>canary-access-key-id</AWSAccessKeyId></Error>"),
}


class FailingStorage:
    """The proxy server; without an injected fault it forwards every request."""

    def __init__(self, storage: str) -> None:
        """Create a proxy for the storage at this URL."""
        self.backend = urlsplit(storage).netloc
        self.faults: list[Fault] = []
        self.lock, self.closing = threading.Lock(), threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"storage": self}))
        self._server.daemon_threads = True
        self._server.block_on_close = False

    @property
    def url(self) -> str:
        """URL of the proxy."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def inject(self, kind: FaultKind, *methods: str, times: int = UNLIMITED, part: str = "") -> Iterator["Fault"]:
        """Inject this fault into the first `times` requests with one of the methods and `part` in path or query."""
        fault = Fault(kind, methods or ("GET", "HEAD", "PUT", "POST", "DELETE"), times, part)
        self.faults.append(fault)
        try:
            yield fault
        finally:
            self.faults.remove(fault)

    def next_fault(self, method: str, path: str) -> FaultKind | None:
        """Return the fault for this request and count it."""
        with self.lock:
            return next((fault.kind for fault in self.faults if fault.applies(method, path)), None)


@dataclass
class Fault:
    """A fault and the requests that it applies to."""

    kind: FaultKind
    methods: tuple[str, ...]
    times: int
    part: str = ""
    """Substring of the path and query."""
    count: int = field(default=0, init=False)
    """Number of requests that met this fault."""

    def applies(self, method: str, path: str) -> bool:
        """Return whether the fault applies to this request, and count the request if so."""
        if self.count >= self.times or method not in self.methods or self.part not in path:
            return False
        self.count += 1
        return True


class Handler(BaseHTTPRequestHandler):
    """Forward one request to the storage, or inject the fault that applies to it."""

    protocol_version = "HTTP/1.1"
    storage: FailingStorage

    def _handle(self) -> None:
        fault = self.storage.next_fault(self.command, self.path)
        length = int(self.headers.get("Content-Length", 0))
        if fault == "dropped request":
            self.rfile.read(length // 2)
            return self._close_connection()
        body = self.rfile.read(length)
        if fault == "no response":
            self.storage.closing.wait(30)
            return self._close_connection()
        if fault in ERROR_RESPONSES:
            status, error = ERROR_RESPONSES[fault]
            return self._respond(status, {}, error.encode())
        connection = HTTPConnection(self.storage.backend)
        connection.request(self.command, self.path, body, dict(self.headers))
        response = connection.getresponse()
        content, headers = response.read(), dict(response.getheaders())
        connection.close()
        if fault == "lost response":
            return self._close_connection()
        return self._respond(response.status, headers, content, fault)

    def _respond(self, status: int, headers: dict[str, str], content: bytes, fault: FaultKind | None = None) -> None:
        first_half = content[: len(content) // 2]
        length = len(first_half if fault == "short body" else content)
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        if self.command == "HEAD":
            length = int(headers.get("content-length", headers.get("Content-Length", "0")))
            length = length // 2 if fault == "short body" else length
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(first_half if fault in ("short body", "partial body") else content)
        if fault == "partial body":
            self._close_connection()

    def _close_connection(self) -> None:
        self.close_connection = True
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle
