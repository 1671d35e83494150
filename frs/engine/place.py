"""Where the hosts of one job meet: the first node's address, from torchrun's variables, and this node's. No torch."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from frs.errors import NodesUnavailable

DEFAULT_PORT = 29500
"""Port of the first node, as torchrun's."""


@dataclass(frozen=True)
class Place:
    """Where a node is, and where it meets the others."""

    host: str
    """Name or address of the first node."""
    port: int
    node: int
    """Number of this node; the first is 0."""
    address: str
    """Address of this node at which its processes listen to those of the other nodes."""


def place_of(host: str | None, port: int, node: int, address: str | None = None) -> Place:
    """Return the place of a node. Its address is by default the one from which it reaches the first node.

    Raises NodesUnavailable if the first node's address is missing or cannot be resolved.
    """
    if not host:
        raise NodesUnavailable("The job runs on several nodes, and the address of the first one is not set.")
    try:
        own = address or _address_towards(host, port)
    except OSError as error:
        raise NodesUnavailable(f"The first node's address {host!r} cannot be used: {error.strerror}.") from None
    if _is_loopback(own) and not (address or _is_loopback(host)):
        raise NodesUnavailable(
            f"{host} is {own} on this host, an address that the other nodes cannot reach.",
            "Set MASTER_ADDR to the address of the first node in the network of the nodes.",
        )
    return Place(host, port, node, own)


def place_in(environment: Mapping[str, str] = os.environ) -> Place:
    """Return the place of the first node from torchrun's variables. Raises NodesUnavailable."""
    host, port = (environment.get(f"PET_{name}") or environment.get(name) for name in ("MASTER_ADDR", "MASTER_PORT"))
    number = int(port) if port and port.isdecimal() else DEFAULT_PORT if not port else 0
    if not 0 < number < 1 << 16:
        raise NodesUnavailable(f"MASTER_PORT is {port!r}, which is no port.")
    return place_of(host, number, 0, environment.get("PET_LOCAL_ADDR"))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address_towards(host: str, port: int) -> str:
    """Return the address from which this host reaches another one. Nothing is sent. Raises OSError."""
    family, kind, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(target)
        return str(probe.getsockname()[0])
