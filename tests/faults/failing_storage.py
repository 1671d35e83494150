"""A server before the object storage that fails as it is told: slowly, half-way, or with an error."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Self
from urllib.parse import urlsplit

How = Literal["503", "403", "silence", "broken off", "cut short", "truncated", "lost answer"]
"""silence: no answer; broken off: it hangs up in the middle of the request; cut short: in the middle of the answer;
truncated: half the content, which calls itself whole; lost answer: it does what was asked for, and hangs up."""
EVER = 1 << 30
REFUSALS = {
    "503": (503, "<Error><Code>SlowDown</Code></Error>"),
    "403": (403, "<Error><Code>AccessDenied</Code><AWSAccessKeyId>canary-access-key-id</AWSAccessKeyId></Error>"),
}


@dataclass
class Fault:
    how: How
    methods: tuple[str, ...]
    times: int
    part: str = ""
    """Of the path and query."""
    happened: int = field(default=0, init=False)

    def meets(self, method: str, path: str) -> bool:
        if self.happened >= self.times or method not in self.methods or self.part not in path:
            return False
        self.happened += 1
        return True


class FailingStorage:
    def __init__(self, storage: str) -> None:
        """`storage`: the address of one that works."""
        self.behind = urlsplit(storage).netloc
        self.faults: list[Fault] = []
        self.lock, self.closing = threading.Lock(), threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"storage": self}))
        self._server.daemon_threads = True
        self._server.block_on_close = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def fails(self, how: How, *methods: str, times: int = EVER, part: str = "") -> Iterator[Fault]:
        fault = Fault(how, methods or ("GET", "HEAD", "PUT", "POST", "DELETE"), times, part)
        self.faults.append(fault)
        try:
            yield fault
        finally:
            self.faults.remove(fault)

    def fault(self, method: str, path: str) -> How | None:
        with self.lock:
            return next((fault.how for fault in self.faults if fault.meets(method, path)), None)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    storage: FailingStorage

    def _handle(self) -> None:
        how = self.storage.fault(self.command, self.path)
        length = int(self.headers.get("Content-Length", 0))
        if how == "broken off":
            self.rfile.read(length // 2)
            return self._hang_up()
        body = self.rfile.read(length)
        if how == "silence":
            self.storage.closing.wait(30)
            return self._hang_up()
        if how in REFUSALS:
            status, said = REFUSALS[how]
            return self._answer(status, {}, said.encode())
        connection = HTTPConnection(self.storage.behind)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        content, headers = answer.read(), dict(answer.getheaders())
        connection.close()
        if how == "lost answer":
            return self._hang_up()
        return self._answer(answer.status, headers, content, how)

    def _answer(self, status: int, headers: dict[str, str], content: bytes, how: How | None = None) -> None:
        half = content[: len(content) // 2]
        promised = len(half if how == "truncated" else content)
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        if self.command == "HEAD":
            promised = int(headers.get("content-length", headers.get("Content-Length", "0")))
            promised = promised // 2 if how == "truncated" else promised
        self.send_header("Content-Length", str(promised))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(half if how in ("truncated", "cut short") else content)
        if how == "cut short":
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()

    def log_message(self, *_: object) -> None: ...

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle
