"""Open event streams by API key: at most so many in all API processes together, or in each without Redis."""

import asyncio
import secrets

from api.http.errors import ApiError
from api.http.shared_limits import SharedLimits

RENEWAL_SECONDS = 5.0
"""Interval at which a process renews its slots in Redis."""
EXPIRY_SECONDS = 15
"""Time after which the slots of a killed process are free."""
_TAKE = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
"""
"""Add a slot unless the key has the maximum; the score of a slot is the time at which it expires."""
_RENEW = """
local expiry = redis.call('TIME')[1] + ARGV[1]
for index = 2, #ARGV do redis.call('ZADD', KEYS[1], expiry, ARGV[index]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
"""
_RELEASE = "return redis.call('ZREM', KEYS[1], ARGV[1])"


class StreamSlots:
    """The slots of this process's streams, by key."""

    def __init__(self, shared: SharedLimits, max_per_key: int) -> None:
        self._shared, self._max_per_key = shared, max_per_key
        self._slots: dict[str, set[str]] = {}

    @property
    def taken(self) -> int:
        """Number of slots of this process."""
        return sum(map(len, list(self._slots.values())))  # a copy: metrics are read in another thread

    async def take(self, key_id: str) -> str:
        """Take a slot and return its id. Raises ApiError 429 if the key has none left."""
        if len(self._slots.get(key_id, ())) >= self._max_per_key:
            raise self._too_many()
        slot = secrets.token_hex(8)
        self._slots.setdefault(key_id, set()).add(slot)  # before the answer of Redis: concurrent calls count it
        try:
            is_free = await self._shared.run(_TAKE, _name(key_id), EXPIRY_SECONDS, self._max_per_key, slot)
        except BaseException:  # cancelled, when Redis may have added the slot
            self.release(key_id, slot)
            raise
        if is_free == 0:
            self._forget(key_id, slot)
            raise self._too_many()
        return slot

    def release(self, key_id: str, slot: str) -> None:
        """Give a slot back: at once in this process, soon in the others."""
        self._forget(key_id, slot)
        self._shared.start(_RELEASE, _name(key_id), slot)

    async def renew_periodically(self) -> None:
        """Postpone the expiry of all slots until cancelled; also restores them in a Redis that has lost them."""
        while True:
            await asyncio.sleep(RENEWAL_SECONDS)
            for key_id, slots in list(self._slots.items()):
                await self._shared.run(_RENEW, _name(key_id), EXPIRY_SECONDS, *slots)

    def _forget(self, key_id: str, slot: str) -> None:
        self._slots[key_id].discard(slot)
        if not self._slots[key_id]:
            del self._slots[key_id]

    def _too_many(self) -> ApiError:
        detail = f"This key has {self._max_per_key} open event streams, the maximum."
        return ApiError(429, "too_many_streams", detail, "Close one, then try again.", headers={"Retry-After": "2"})


def _name(key_id: str) -> str:
    return f"streams:{key_id}"
