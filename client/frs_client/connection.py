"""The HTTP connection to the service: address, key and proxies, and the message of each kind of failure.

No message contains the key or a password of the address.
"""

import ipaddress
import re
import ssl
import urllib.request
from typing import TypeVar

import httpx2

from frs_client.errors import NoAnswer, ServiceError

Http = TypeVar("Http", httpx2.Client, httpx2.AsyncClient)

BROKEN = (httpx2.ReadError, httpx2.WriteError, httpx2.CloseError, httpx2.RemoteProtocolError)
"""Failures of an open connection: the request may have reached the service."""
_KEY = re.compile(r"[\x21-\x7e]+")
_CHECK_ADDRESS = "Set FRS_URL to the address of the service, such as https://frs.example.org."
_REPEAT = "Try again; an equal request is carried out once."
_LOOK = "The service may have carried out the request. Look before you send it again."


def connect(kind: type[Http], url: str, key: str, timeout: float) -> Http:
    """Return an HTTP client of this kind for the service; white space around address and key is removed.

    Proxies of the environment are not used for this machine's own addresses. Raises ServiceError if the address, the
    key or a proxy setting is malformed.
    """
    address, key = _parse_address(url), key.strip()
    if not _KEY.fullmatch(key):
        raise ServiceError(
            "The API key is malformed: it contains white space or characters other than ASCII, or is empty.",
            "Copy the key again, without quotes, into FRS_API_KEY or the file `api-key` of the data folder.",
        )
    headers = {"Authorization": f"Bearer {key}"}
    try:
        return kind(base_url=address, headers=headers, timeout=timeout, trust_env=not is_local(address.host))
    except (ValueError, ImportError, httpx2.InvalidURL):
        raise ServiceError(
            "A proxy of the environment cannot be used: its URL is malformed or its protocol is not supported.",
            "Set HTTPS_PROXY, HTTP_PROXY and ALL_PROXY to http:// or https:// URLs, or unset them.",
        ) from None


def is_local(host: str) -> bool:
    """Return whether the host is `localhost`, a loopback address or the unspecified address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def printable(url: httpx2.URL | str) -> str:
    """Return the URL without user name, password and query."""
    return str(httpx2.URL(url).copy_with(userinfo=b"", query=None)).rstrip("/")


def no_answer(
    error: httpx2.RequestError, client: httpx2.Client | httpx2.AsyncClient, *, is_repeatable: bool = True
) -> NoAnswer:
    """Return the error of the client: whether no connection was made, or what happened to it.

    `is_repeatable` states that the service carries out a repeated request once.
    """
    url, reason = printable(client.base_url), str(error).rstrip(".") or type(error).__name__
    proxy = _proxy(client)
    repeat = _REPEAT if is_repeatable else _LOOK
    match error:
        case httpx2.ProxyError():
            return NoAnswer(f"The proxy {proxy} made no connection to {url}: {reason}.", _hint_for_proxy(client))
        case httpx2.ConnectTimeout():
            return NoAnswer(f"No connection to {proxy or url} was made within the time limit.", _CHECK_ADDRESS)
        case httpx2.TimeoutException():
            return NoAnswer(f"The service at {url} accepted the connection but did not answer in time.", repeat)
        case httpx2.ConnectError() if _is_tls(error):
            hint = "Use http:// if the service has no TLS. SSL_CERT_FILE names a file of trusted certificates."
            return NoAnswer(f"The TLS connection to {proxy or url} failed: {reason}.", hint)
        case httpx2.ConnectError() if proxy:
            return NoAnswer(f"No proxy answers at {proxy}: {reason}.", _hint_for_proxy(client))
        case httpx2.ConnectError():
            hint = "If it is not starting: `frs up`, or `docker compose up -d`. For another address, set FRS_URL."
            return NoAnswer(f"No service answers at {url}: {reason}.", hint)
        case httpx2.LocalProtocolError():
            return NoAnswer(f"The request to {url} is not valid HTTP.", "Report this as a fault of `frs`.")
        case _:
            return NoAnswer(f"The connection to {url} broke before the answer was complete: {reason}.", repeat)


def _parse_address(url: str) -> httpx2.URL:
    try:
        address = httpx2.URL(url.strip().rstrip("/")).copy_with(query=None)
    except httpx2.InvalidURL:
        address = httpx2.URL("")
    if address.scheme not in ("http", "https") or not address.host:
        raise ServiceError("The address of the service is not a URL with http:// or https://.", _CHECK_ADDRESS)
    return address


def _proxy(client: httpx2.Client | httpx2.AsyncClient) -> str | None:
    """Return the proxy of the environment that requests to the service use; None without one."""
    url = client.base_url
    if not client.trust_env or urllib.request.proxy_bypass(url.host):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    return printable(proxy if "://" in proxy else f"http://{proxy}") if proxy else None


def _hint_for_proxy(client: httpx2.Client | httpx2.AsyncClient) -> str:
    return f"Correct HTTPS_PROXY or HTTP_PROXY, or add {client.base_url.host} to NO_PROXY."


def _is_tls(error: BaseException | None) -> bool:
    """Return whether TLS caused the error."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
