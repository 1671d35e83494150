"""Somebody who publishes files over HTTP on loopback, with Range, and who can break off, lie or be strict."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Publisher:
    def __init__(self, url: str) -> None:
        self.url = url
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        """Every request's file and its Range."""
        self.break_after: list[int] = []
        """So many bytes the next answers send of what they announced; then they are whole."""
        self.takes_ranges = True


@contextmanager
def publishing() -> Iterator[Publisher]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    publisher = server.publisher = Publisher(f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield publisher
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Any

    def do_GET(self) -> None:
        publisher: Publisher = self.server.publisher
        name, asked = self.path.rpartition("/")[2], self.headers["Range"]
        publisher.asked.append((name, asked))
        if name not in publisher.files:
            self.send_error(404)
            return
        content = publisher.files[name]
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and publisher.takes_ranges else 0  # type: ignore[index]
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + publisher.break_after.pop(0) if publisher.break_after else len(content)
        self.wfile.write(content[start:end])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass
