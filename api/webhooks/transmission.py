"""One attempt: a signed POST to the receiver, without redirects, within a time limit."""

import asyncio
import ssl
import time
from datetime import UTC, datetime

import httpcore2
from standardwebhooks.webhooks import Webhook as Signer

from api.webhooks.addresses import AddressNotAllowed
from store.webhooks.deliveries import Claim, Outcome

ATTEMPT_SECONDS = 15.0
"""Longest duration of an attempt, from the DNS query to the headers of the answer."""
_MAX_ERROR_LENGTH = 200


class Transmitter:
    """Sends claimed deliveries. The receiver's status decides; the body of its answer is not read.

    Each attempt has a new connection through `backend`, which checks the address. Proxies of the environment are not
    used: they would connect to unchecked addresses.
    """

    def __init__(self, backend: httpcore2.AsyncNetworkBackend, ssl_context: ssl.SSLContext | None = None) -> None:
        self._backend = backend
        self._ssl_context = ssl_context or httpcore2.default_ssl_context()

    async def send(self, claim: Claim, seconds: float = ATTEMPT_SECONDS) -> Outcome:
        """Make the attempt and return its outcome; raises nothing."""
        started = time.monotonic()
        status_code, error = None, None
        try:
            async with asyncio.timeout(seconds):
                status_code = await self._post(claim)
            error = _error_of_status(status_code)
        except Exception as exception:
            error = _error_text(exception, seconds)
        return Outcome(status_code, error, round(time.monotonic() - started, 3))

    async def _post(self, claim: Claim) -> int:
        pool = httpcore2.AsyncConnectionPool(self._ssl_context, network_backend=self._backend)
        content = claim.body.encode()
        async with pool, pool.stream("POST", claim.url, headers=headers(claim), content=content) as answer:
            return int(answer.status)


def headers(claim: Claim) -> dict[bytes | str, bytes | str]:
    """Return the headers of Standard Webhooks, signed for the time of the attempt."""
    at = datetime.fromtimestamp(int(claim.at), UTC)
    return {
        "Content-Type": "application/json",
        "User-Agent": "frs-webhooks",
        "webhook-id": claim.delivery_id,
        "webhook-timestamp": str(int(claim.at)),
        "webhook-signature": Signer(claim.secret).sign(claim.delivery_id, at, claim.body),
    }


def _error_of_status(status_code: int) -> str | None:
    if 200 <= status_code < 300:
        return None
    if 300 <= status_code < 400:
        return f"The receiver answered {status_code}; redirects are not followed."
    return f"The receiver answered {status_code}."


def _error_text(error: Exception, seconds: float) -> str:
    match error:
        case TimeoutError():
            return f"The receiver did not answer within {seconds:g} s."
        case AddressNotAllowed():
            return str(error)
        case httpcore2.ConnectTimeout():
            return "The receiver did not accept the connection in time."
        case httpcore2.ConnectError():
            return f"The connection failed: {_cause(error)}"
        case httpcore2.RemoteProtocolError():
            return f"The answer is not valid HTTP: {_cause(error)}"
        case _:
            return f"The connection broke: {_cause(error)}"


def _cause(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:_MAX_ERROR_LENGTH]
