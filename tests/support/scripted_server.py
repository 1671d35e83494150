"""An HTTP server on loopback that answers each request with the next of its scripted answers."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BREAK = None
"""An answer that never comes: the server reads the request and closes the connection."""
Answer = tuple[int, dict[str, str], bytes] | None


def answer(body: Any = None, status: int = 200, **headers: str) -> Answer:
    """Return an answer with a JSON body."""
    return status, {"Content-Type": "application/json"} | headers, json.dumps(body or {}).encode()


class ScriptedServer:
    def __init__(self, url: str, answers: list[Answer]) -> None:
        self.url, self.answers = url, answers
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        """Method, path and headers of every request; header names are in lower case."""
        self.bodies: list[bytes] = []

    def header(self, name: str) -> list[str | None]:
        """Return the header of every request."""
        return [headers.get(name) for _, _, headers in self.requests]


@contextmanager
def serve(*answers: Answer) -> Iterator[ScriptedServer]:
    """Run a server; the last answer is repeated."""
    http_server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server = ScriptedServer(f"http://127.0.0.1:{http_server.server_port}", list(answers))
    http_server.scripted = server  # type: ignore[attr-defined]
    threading.Thread(target=http_server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        http_server.shutdown()
        http_server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Any

    def _answer(self) -> None:
        scripted: ScriptedServer = self.server.scripted
        scripted.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        scripted.requests.append(
            (self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        )
        reply = scripted.answers.pop(0) if len(scripted.answers) > 1 else scripted.answers[0]
        self.close_connection = True
        if reply is BREAK:
            return
        status, headers, body = reply
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = do_CONNECT = _answer

    def log_message(self, *_: object) -> None:
        pass
