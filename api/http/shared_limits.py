"""Limits that all API processes share, as Lua scripts in the Redis of the broker.

Redis is an aid, never a condition: while it does not answer, each process counts for itself.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable
from functools import cached_property
from typing import Any, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError

TIMEOUT_SECONDS = 0.5
"""Timeout of connecting to Redis, of its answer, and of waiting for a free connection."""
PAUSE_SECONDS = 5.0
"""Time after a failure in which Redis is not asked, so that an outage delays one request of each interval."""
MAX_CONNECTIONS = 20
_PREFIX = "frs:"
_log = logging.getLogger(__name__)


class SharedLimits:
    """The Redis server at `url`; None for a process that counts for itself."""

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._retry_at: float | None = None
        """Time of the next attempt after a failure; None while Redis answers."""
        self._tasks: set[asyncio.Task[Any]] = set()
        """Running tasks of `start`, to which the event loop has weak references only."""

    async def run(self, script: str, key: str, *arguments: str | float) -> Any:
        """Return the result of a Lua script on one key, which is never nil; None without an answer from Redis."""
        if self._url is None or self._is_paused():
            return None
        try:
            result = await self._client.register_script(script)([_PREFIX + key], arguments)
        except Exception as error:  # any error of the client or of its URL: limits reject nothing because of Redis
            self._pause(error)
            return None
        if self._retry_at is not None:
            self._retry_at = None
            _log.info("Redis answers again: limits hold for all API processes together.")
        return result

    def start(self, script: str, key: str, *arguments: str | float) -> None:
        """Start `run` in the background."""
        task = asyncio.create_task(self.run(script, key, *arguments))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait for what `start` has started, and close the connections."""
        await asyncio.gather(*self._tasks)
        if "_client" in self.__dict__:
            await cast(Awaitable[None], self._client.aclose())

    @cached_property
    def _client(self) -> Redis:
        assert self._url is not None
        pool = BlockingConnectionPool.from_url(
            self._url,
            max_connections=MAX_CONNECTIONS,
            timeout=TIMEOUT_SECONDS,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 1, (ConnectionError,)),  # a restarted server has closed the pool's connections
        )
        return Redis.from_pool(pool)

    def _is_paused(self) -> bool:
        if self._retry_at is None:
            return False
        now = time.monotonic()
        is_paused = now < self._retry_at
        if not is_paused:  # other requests do not wait for the outcome of this attempt
            self._retry_at = now + PAUSE_SECONDS
        return is_paused

    def _pause(self, error: Exception) -> None:
        if self._retry_at is None:
            message = "Redis does not answer: until it does, each API process applies the limits of keys for itself."
            _log.warning(message, extra={"error": type(error).__name__})  # its text may contain a part of the URL
        self._retry_at = time.monotonic() + PAUSE_SECONDS
