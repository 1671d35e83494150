"""How often somebody may come: a token bucket each, in this process."""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from api.http.errors import ApiError

_REMEMBERED = 10_000


class TokenBuckets:
    """Each holds a minute's worth and fills evenly; of those not seen for longest, the fill is forgotten."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, remembered: int = _REMEMBERED) -> None:
        self._clock, self._remembered = clock, remembered
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By who comes: tokens, and when there were so many."""

    def take(self, who: str, per_minute: int) -> float:
        """Takes a token, or says in how many seconds there is one; 0.0 where it was there."""
        present, rate = self._clock(), per_minute / 60
        left, since = self._left.pop(who, (float(per_minute), present))
        left = min(float(per_minute), left + (present - since) * rate)
        taken = left >= 1
        self._left[who] = (left - 1 if taken else left, present)
        if len(self._left) > self._remembered:
            self._left.popitem(last=False)
        return 0.0 if taken else (1 - left) / rate


def rate_limited(detail: str, wait: float, hint: str = "") -> ApiError:
    seconds = max(1, math.ceil(wait))
    hint = hint or f"Try again in {seconds} s; an admin can make a key that allows more."
    return ApiError(429, "rate_limited", detail, hint, headers={"Retry-After": str(seconds)})


def client_network(address: str) -> str:
    """What one client can have to itself: an IPv4 address, an IPv6 /64."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if parsed.version == 4 else str(ipaddress.ip_network((int(parsed), 64), strict=False))
