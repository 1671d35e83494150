"""`python -m api`: serves the API in this process."""

import argparse
import ipaddress
import logging
import socket
from collections.abc import Callable

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from api import logs
from api.app import create_app
from frs.errors import FrsError
from frs.isolation.process import die_with_parent, hide_memory

GRACE_SECONDS = 5
_log = logging.getLogger("api")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    die_with_parent()
    hide_memory()
    logs.configure()
    try:
        app = create_app()
    except FrsError as error:
        raise SystemExit(f"{error.code}: {error}") from None
    if not is_loopback(arguments.host):
        _log.warning("Keys and data cross the network in the clear: put something that ends TLS in front.")
    config = uvicorn.Config(
        app,
        host=arguments.host,
        port=arguments.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = Server(config, app.state.context.streams.end)
    server.run()
    if not server.started:
        raise SystemExit(STARTUP_FAILURE)


class Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_streams = end_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._end_streams()  # it waits for answers to end, and these would not by themselves
        await super().shutdown(sockets)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    main()
