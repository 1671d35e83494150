"""HTTP receivers on loopback whose answers are scripts, for tests of webhooks."""

import queue
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

Script = Callable[[socket.socket], Any]
"""Sends the answer on the connection; afterwards the connection is closed."""


@dataclass(frozen=True)
class Received:
    """A request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes


class Receiver:
    """A server whose n-th connection is answered by the n-th script, and every further one by the last."""

    def __init__(self, *scripts: Script, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self._scripts = list(scripts) or [status(204)]
        self._tls = tls
        self._socket = socket.create_server((host, 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://{host}:{self.port}/hook"
        self.received: queue.Queue[Received] = queue.Queue()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def requests(self) -> list[Received]:
        """Return the requests received so far that were not returned before."""
        return [self.received.get_nowait() for _ in range(self.received.qsize())]

    def _serve(self) -> None:
        number = 0
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                script = self._scripts[min(number, len(self._scripts) - 1)]
                number += 1
                threading.Thread(target=self._answer, args=[connection, script], daemon=True).start()

    def _answer(self, connection: socket.socket, script: Script) -> None:
        with suppress(OSError):
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                self.received.put(_read(connection))
                script(connection)


def status(code: int, *headers: str) -> Script:
    """Answer with a status and no body."""
    lines = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {code} X", *headers, "Content-Length: 0", ""))
    return send(lines.encode())


def send(content: bytes) -> Script:
    """Send these bytes."""
    return lambda connection: connection.sendall(content)


def wait_for(event: threading.Event) -> Script:
    """Answer nothing until the event is set."""
    return lambda connection: event.wait()


def _read(connection: socket.socket) -> Received:
    content = b""
    while b"\r\n\r\n" not in content:
        content += _receive(connection)
    head, _, body = content.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers["content-length"]):
        body += _receive(connection)
    method, target, _ = first.split(" ")
    return Received(method, target, headers, body)


def _receive(connection: socket.socket) -> bytes:
    content = connection.recv(65_536)
    if not content:
        raise ConnectionResetError("the client closed the connection")
    return content
