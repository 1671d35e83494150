"""An HTTP file server on loopback with Range and If-Range, which can break off responses or ignore ranges."""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FileServer:
    def __init__(self, url: str) -> None:
        self.url = url
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        """File name and Range header of every request."""
        self.break_after: list[int] = []
        """Number of bytes after which each of the next responses breaks off; later responses are complete."""
        self.supports_ranges = True
        self.refusals: list[tuple[int, str]] = []
        """Status and `Retry-After` of the next responses, which are refusals."""


@contextmanager
def serve_files() -> Iterator[FileServer]:
    http_server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    file_server = FileServer(f"http://127.0.0.1:{http_server.server_port}")
    http_server.file_server = file_server  # type: ignore[attr-defined]
    thread = threading.Thread(target=http_server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield file_server
    finally:
        http_server.shutdown()
        http_server.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Any

    def do_GET(self) -> None:
        file_server: FileServer = self.server.file_server
        name, byte_range = self.path.rpartition("/")[2], self.headers["Range"]
        file_server.requests.append((name, byte_range))
        if file_server.refusals:
            status, retry_after = file_server.refusals.pop(0)
            self.send_response(status)
            self.send_header("Retry-After", retry_after)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if name not in file_server.files:
            self.send_error(404)
            return
        content = file_server.files[name]
        start, etag = 0, f'"{hashlib.sha256(content).hexdigest()}"'
        if byte_range and file_server.supports_ranges and self.headers.get("If-Range", etag) == etag:
            start = int(re.fullmatch(r"bytes=(\d+)-", byte_range)[1])  # type: ignore[index]
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + file_server.break_after.pop(0) if file_server.break_after else len(content)
        self.wfile.write(content[start:end])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass
