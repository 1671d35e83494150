"""A TCP proxy that passes each connection on to the next of several servers, as a load balancer does."""

import itertools
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Self


class RoundRobinProxy:
    """Listens on a free loopback port; a server that refuses the connection is skipped."""

    def __init__(self, ports: Sequence[int]) -> None:
        """Prepare a proxy for the servers on these ports."""
        self._ports = itertools.cycle(ports)
        self._count = len(ports)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept_all, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts; close alone does not
        self._listener.close()

    def _accept_all(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with client:
            server = self._connect()
            if server is None:
                return
            with server:
                upstream = threading.Thread(target=_copy, args=(client, server), daemon=True)
                upstream.start()
                _copy(server, client)
                upstream.join()

    def _connect(self) -> socket.socket | None:
        for _ in range(self._count):
            with suppress(OSError):
                return socket.create_connection(("127.0.0.1", next(self._ports)))
        return None


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copy bytes until the source ends or breaks, then end the target."""
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
