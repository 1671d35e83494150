"""Serve the API in this process (`python -m api`)."""

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
from store.settings_report import read_settings, unknown_variables

GRACE_SECONDS = 5
"""Time that open requests get to finish at shutdown."""
_log = logging.getLogger("api")


def main() -> None:
    """Start the server and run it until a signal stops it.

    Exits with the error message if a setting is invalid or the database is not ready, and with uvicorn's exit code if
    the port cannot be bound.
    """
    parser = argparse.ArgumentParser(prog="python -m api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    die_with_parent()
    hide_memory()
    logs.configure()
    for message in unknown_variables():
        _log.warning(message)
    try:
        app = create_app(read_settings())
    except FrsError as error:
        raise SystemExit(f"{error.code}: {error}") from None
    if not is_loopback(arguments.host):
        _log.warning(
            "The API listens on %s without encryption. Unless that port is published on loopback only, put a reverse "
            "proxy that terminates TLS in front of it: API keys and data are sent in plain text.",
            arguments.host,
        )
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
    """A uvicorn server that ends the event streams before it waits for open responses at shutdown."""

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_streams = end_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the event streams, then shut down."""
        self._end_streams()  # uvicorn waits for open responses, and a stream does not end by itself
        await super().shutdown(sockets)


def is_loopback(host: str) -> bool:
    """Return whether `host` is a loopback address or `localhost`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    main()
