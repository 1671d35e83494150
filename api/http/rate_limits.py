"""Rate limits: one token bucket per client, in Redis or else in the memory of this process."""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from api.http.errors import ApiError
from api.http.shared_limits import SharedLimits

_MAX_CLIENTS = 10_000
_TAKE = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local interval = 60 / tonumber(ARGV[1])
local full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + interval
local wait = full_at - now - 60
if wait > 0 then return tostring(wait) end
redis.call('SET', KEYS[1], string.format('%.6f', full_at), 'EX', 61)
return '0'
"""
"""`TokenBuckets.take`, with the time at which the bucket will be full again as its only value (GCRA)."""


class RateLimit:
    """Token buckets that all API processes share while Redis answers, and each process has for itself otherwise."""

    def __init__(self, shared: SharedLimits, name: str) -> None:
        self._shared, self._name, self._own = shared, name, TokenBuckets()

    async def take(self, client: str, per_minute: int) -> float:
        """Take a token and return 0.0, or return the seconds until the next token is available."""
        wait = await self._shared.run(_TAKE, f"{self._name}:{client}", per_minute)
        return self._own.take(client, per_minute) if wait is None else float(wait)


class TokenBuckets:
    """Token buckets that hold the requests of one minute and refill evenly.

    At most `max_clients` buckets are kept. The least recently used one is dropped, and its client gets a full one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, max_clients: int = _MAX_CLIENTS) -> None:
        self._clock, self._max_clients = clock, max_clients
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By client: number of tokens, and the time at which it was computed."""

    def take(self, client: str, per_minute: int) -> float:
        """Take a token and return 0.0, or return the seconds until the next token is available."""
        present, rate = self._clock(), per_minute / 60
        tokens, since = self._buckets.pop(client, (float(per_minute), present))
        tokens = min(float(per_minute), tokens + (present - since) * rate)
        is_allowed = tokens >= 1
        self._buckets[client] = (tokens - 1 if is_allowed else tokens, present)
        if len(self._buckets) > self._max_clients:
            self._buckets.popitem(last=False)
        return 0.0 if is_allowed else (1 - tokens) / rate


def rate_limited(detail: str, wait: float, hint: str = "") -> ApiError:
    """Return the 429 error with a `Retry-After` of `wait` seconds, rounded up."""
    seconds = max(1, math.ceil(wait))
    hint = hint or f"Try again in {seconds} s. An admin can create a key with a higher limit."
    return ApiError(429, "rate_limited", detail, hint, headers={"Retry-After": str(seconds)})


def client_network(address: str) -> str:
    """Return the network that is counted as one client: the address itself for IPv4, its /64 for IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if parsed.version == 4 else str(ipaddress.ip_network((int(parsed), 64), strict=False))
