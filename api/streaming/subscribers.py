"""Who follows a job's stream, and what waits for each."""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from sqlalchemy.exc import SQLAlchemyError

from api.http.auth import RecheckKey
from api.streaming.history import State

PING_SECONDS = 15.0
QUEUE = 256
"""Events that wait for a client."""
PAUSE_SECONDS = 1.0
"""After a database that did not answer."""
_log = logging.getLogger(__name__)

NumberedEvent = tuple[int, bytes]
"""An event as it is sent, under its number."""
ReadPage = Callable[[str, int, int], Awaitable[tuple[int, Sequence[NumberedEvent]]]]
"""Of a job, after a number, as far as another at most: how far it goes, and what there is."""


class Channel:
    """What the reader last saw of one job, and who follows it."""

    __slots__ = ("end", "followers", "job_id", "progress", "seq")

    def __init__(self, job_id: str, state: State) -> None:
        self.job_id, self.seq = job_id, state.newest
        self.followers: set[Subscriber] = set()
        self.progress = self.end = b""
        self.see(state)

    def see(self, state: State) -> bool:
        """Whether there is anything new to say besides events."""
        progress = format_sse_event(event="progress", data_str=state.progress) if state.progress else b""
        said = {"status": state.status, "end_reason": state.end_reason}
        end = wire("end", said) if state.status.is_terminal and self.seq >= state.newest else b""
        before, (self.progress, self.end) = (self.progress, self.end), (progress, end)
        return before != (progress, end)

    def take(self, state: State, upto: int, news: Sequence[NumberedEvent]) -> None:
        self.seq = upto
        if self.see(state) or news:
            for follower in self.followers:
                follower.push(news)


class Subscriber:
    """One client of one job."""

    __slots__ = ("_behind", "_over", "_progress", "_queue", "_read", "_woken", "still_known", "channel", "closed_at",
                 "key_id", "last_words", "pinged_at", "seq", "task")  # fmt: skip

    def __init__(self, channel: Channel, after: int, key_id: str, still_known: RecheckKey, read: ReadPage) -> None:
        self.channel, self.seq, self.key_id, self.still_known = channel, after, key_id, still_known
        self.task: asyncio.Task[Any] | None = None
        self.last_words: bytes | None = None
        self.closed_at = self.pinged_at = time.monotonic()
        self._read = read
        self._queue: deque[NumberedEvent] = deque()
        self._behind, self._over = True, False
        self._progress = b""
        self._woken = asyncio.Event()

    def push(self, news: Sequence[NumberedEvent]) -> None:
        if not self._behind and len(self._queue) + len(news) > QUEUE:
            self._behind = True
            self._queue.clear()
        if not self._behind:
            self._queue += news
        self._woken.set()

    def close(self, last_words: bytes = b"") -> None:
        if self.last_words is None:
            self.last_words, self.closed_at = last_words, time.monotonic()
            self._woken.set()

    def ping(self) -> None:
        self._woken.set()

    async def next(self) -> bytes | None:
        """What to send; None once the stream has ended."""
        while not self._over:
            self._woken.clear()
            if self.last_words is not None:
                self._over = True
                return self.last_words or None
            if found := await self._catch_up() if self._is_behind() else self._news():
                self.pinged_at = time.monotonic()
                return found
            if not self._behind:
                await self._woken.wait()
        return None

    def _is_behind(self) -> bool:
        """Once it is where the reader is, its queue has what follows without a gap."""
        self._behind = self._behind and self.seq < self.channel.seq
        return self._behind

    async def _catch_up(self) -> bytes:
        try:
            self.seq, page = await self._read(self.channel.job_id, self.seq, self.channel.seq)
        except SQLAlchemyError as error:
            _log.warning("stream", extra={"error": type(error).__name__})
            await asyncio.sleep(PAUSE_SECONDS)
            return b""
        return b"".join(wire for _, wire in page)

    def _news(self) -> bytes:
        parts = [wire for seq, wire in self._queue if seq > self.seq]
        self._queue.clear()
        self.seq = max(self.seq, self.channel.seq)
        if self._progress != self.channel.progress:
            self._progress = self.channel.progress
            parts.append(self._progress)
        if self.channel.end:
            self._over = True
            parts.append(self.channel.end)
        if not parts and time.monotonic() - self.pinged_at >= PING_SECONDS:
            parts.append(KEEPALIVE_COMMENT)
        return b"".join(parts)


def wire(type: str, data: Any, id: str | None = None) -> bytes:
    return format_sse_event(event=type, data_str=json.dumps(data), id=id)
