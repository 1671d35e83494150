"""Subscribers of event streams and their queues."""

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
"""Interval at which a comment is sent on an idle stream."""
QUEUE_SIZE = 256
"""Maximum number of events that wait for one client."""
RETRY_SECONDS = 1.0
"""Wait after a database error before the query is repeated."""
_log = logging.getLogger(__name__)

NumberedEvent = tuple[int, bytes]
"""The sequence number of an event, and the event as bytes of the stream."""
ReadPage = Callable[[str, int, int], Awaitable[tuple[int, Sequence[NumberedEvent]]]]
"""Read a page of events of a job.

Takes the job id, the sequence number to start after and the last one allowed; returns the last sequence number of the
page and its events.
"""


class Channel:
    """One job: its latest state, as read by the reader, and its subscribers."""

    __slots__ = ("end", "job_id", "progress", "seq", "subscribers")

    def __init__(self, job_id: str, state: State) -> None:
        self.job_id, self.seq = job_id, state.newest
        self.subscribers: set[Subscriber] = set()
        self.progress = self.end = b""
        self.update(state)

    def update(self, state: State) -> bool:
        """Store the state; return whether `progress` or `end` has changed."""
        progress = format_sse_event(event="progress", data_str=state.progress) if state.progress else b""
        data = {"status": state.status, "end_reason": state.end_reason}
        end = encode_event("end", data) if state.status.is_terminal and self.seq >= state.newest else b""
        before, (self.progress, self.end) = (self.progress, self.end), (progress, end)
        return before != (progress, end)

    def publish(self, state: State, last: int, events: Sequence[NumberedEvent]) -> None:
        """Pass the events up to sequence number `last` to all subscribers."""
        self.seq = last
        if self.update(state) or events:
            for subscriber in self.subscribers:
                subscriber.push(events)


class Subscriber:
    """One client of one channel."""

    __slots__ = ("_is_behind", "_is_over", "_progress", "_queue", "_read_page", "_wakeup", "channel", "closed_at",
                 "final_event", "key_id", "pinged_at", "recheck_key", "seq", "task")  # fmt: skip

    def __init__(self, channel: Channel, after: int, key_id: str, recheck_key: RecheckKey, read_page: ReadPage) -> None:
        self.channel, self.seq, self.key_id, self.recheck_key = channel, after, key_id, recheck_key
        self.task: asyncio.Task[Any] | None = None
        self.final_event: bytes | None = None
        self.closed_at = self.pinged_at = time.monotonic()
        self._read_page = read_page
        self._queue: deque[NumberedEvent] = deque()
        self._is_behind, self._is_over = True, False
        self._progress = b""
        self._wakeup = asyncio.Event()

    def push(self, events: Sequence[NumberedEvent]) -> None:
        """Queue events and wake the client; a queue that is full is cleared, and the client reads the database."""
        if not self._is_behind and len(self._queue) + len(events) > QUEUE_SIZE:
            self._is_behind = True
            self._queue.clear()
        if not self._is_behind:
            self._queue += events
        self._wakeup.set()

    def close(self, final_event: bytes = b"") -> None:
        """End the stream with this event; later calls have no effect."""
        if self.final_event is None:
            self.final_event, self.closed_at = final_event, time.monotonic()
            self._wakeup.set()

    def ping(self) -> None:
        """Wake the client, so that it sends a comment on an idle stream."""
        self._wakeup.set()

    async def next(self) -> bytes | None:
        """Return the next bytes to send; None at the end of the stream."""
        while not self._is_over:
            self._wakeup.clear()
            if self.final_event is not None:
                self._is_over = True
                return self.final_event or None
            if chunk := await self._catch_up() if self._check_behind() else self._take_queued():
                self.pinged_at = time.monotonic()
                return chunk
            if not self._is_behind:
                await self._wakeup.wait()
        return None

    def _check_behind(self) -> bool:
        """Return whether the client still reads from the database.

        After it has reached the position of the reader, its queue continues without a gap.
        """
        self._is_behind = self._is_behind and self.seq < self.channel.seq
        return self._is_behind

    async def _catch_up(self) -> bytes:
        try:
            self.seq, page = await self._read_page(self.channel.job_id, self.seq, self.channel.seq)
        except SQLAlchemyError as error:
            _log.warning("stream", extra={"error": type(error).__name__})
            await asyncio.sleep(RETRY_SECONDS)
            return b""
        return b"".join(event for _, event in page)

    def _take_queued(self) -> bytes:
        parts = [event for seq, event in self._queue if seq > self.seq]
        self._queue.clear()
        self.seq = max(self.seq, self.channel.seq)
        if self._progress != self.channel.progress:
            self._progress = self.channel.progress
            parts.append(self._progress)
        if self.channel.end:
            self._is_over = True
            parts.append(self.channel.end)
        if not parts and time.monotonic() - self.pinged_at >= PING_SECONDS:
            parts.append(KEEPALIVE_COMMENT)
        return b"".join(parts)


def encode_event(type: str, data: Any, id: str | None = None) -> bytes:
    """Return a server-sent event whose data is JSON."""
    return format_sse_event(event=type, data_str=json.dumps(data), id=id)
