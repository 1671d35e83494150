"""Addresses that webhooks may reach: public ones, and the networks that the operator allows.

A URL is checked when a webhook is created, a host's addresses at each attempt. The connection goes to an address that
was checked, without a second DNS query, so that an answer that changes in between has no effect.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence

import httpcore2

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Return the addresses of a host and port. Raises OSError."""
NOT_ALLOWED = (
    "The host's address is private, local or reserved; an operator can allow its network with "
    "FRS_WEBHOOK_ALLOWED_NETWORKS."
)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_CONNECT_SECONDS = 5.0


class AddressNotAllowed(httpcore2.ConnectError):
    """The host has an address that webhooks must not reach. The message does not contain it."""

    def __init__(self) -> None:
        super().__init__(NOT_ALLOWED)


def is_allowed(address: str, allowed: Iterable[Network]) -> bool:
    """Return whether webhooks may reach the address: it is public, or in an allowed network.

    An IPv4 address within an IPv6 address (mapped, NAT64, 6to4, Teredo) is checked in its place.
    """
    ip = _innermost(ipaddress.ip_address(address.partition("%")[0]))
    return _is_public(ip) or any(ip in network for network in allowed)


def literal_address(host: str) -> str | None:
    """Return the address that the host of a URL spells, in any notation; None if it is a name."""
    try:
        [(*_, address), *_] = socket.getaddrinfo(host.strip("[]"), None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return None
    return str(address[0])


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host as the system resolves it. Raises OSError."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError("The host name is invalid.") from error
    return [str(address[0]) for *_, address in found]


class CheckedBackend(httpcore2.AsyncNetworkBackend):
    """Opens connections to addresses that were checked. Raises AddressNotAllowed if one of a host's is not allowed."""

    def __init__(self, allowed: Sequence[Network], resolve: Resolve = resolve) -> None:
        self._allowed, self._resolve = allowed, resolve
        self._backend = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Resolve the host once, check all its addresses and connect to the first one that answers."""
        try:
            addresses = list(dict.fromkeys(await self._resolve(host, port)))
        except OSError as error:
            raise httpcore2.ConnectError("The host name cannot be resolved.") from error
        if not addresses or not all(is_allowed(address, self._allowed) for address in addresses):
            raise AddressNotAllowed
        for address in addresses[:-1]:
            try:
                return await self._backend.connect_tcp(address, port, _CONNECT_SECONDS)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return await self._backend.connect_tcp(addresses[-1], port, _CONNECT_SECONDS)


def _innermost(ip: Address) -> Address:
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or ip


def _is_public(ip: Address) -> bool:
    if isinstance(ip, ipaddress.IPv6Address) and ip not in _GLOBAL_UNICAST:
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)
