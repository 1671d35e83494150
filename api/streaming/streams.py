"""Live event streams of jobs: one reader per process polls the database, and each client has a bounded queue.

The queue of a client that does not keep up is cleared, but no event is lost: the client continues from the database,
after the last event sent to it. New and reconnecting clients read from the database as well, until they have caught up
with the reader. Streams are the only state of the API that lives in the event loop; endpoints run in threads.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from anyio import CapacityLimiter, to_thread
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.http.auth import Caller, RecheckKey
from api.http.errors import ApiError
from api.http.shared_limits import SharedLimits
from api.streaming import history
from api.streaming.history import State
from api.streaming.slots import StreamSlots
from api.streaming.subscribers import PING_SECONDS, Channel, NumberedEvent, Subscriber, encode_event
from store.db.database import Database

POLL_SECONDS = 0.25
"""Interval at which the reader queries the database."""
MAINTENANCE_SECONDS = 0.5
"""Interval at which keys are checked and pings are sent; a revoked key ends its streams."""
CLOSE_TIMEOUT_SECONDS = 1.0
"""Time that a client has to receive its last event before its connection is closed."""
PAGE_SIZE = 200
"""Events, and batches of metrics, that are read at a time for a client that is behind."""
MAX_SPAN = 50
"""Sequence numbers of each job that the reader reads at a time."""
JOBS_PER_QUERY = 500
"""Jobs in one query of the reader."""
MAX_STREAMS = 5_000
"""Maximum number of streams of one process."""
RECONNECT = b"retry: 1000\n\n"
"""Field `retry` of server-sent events: clients reconnect after 1 s."""
_log = logging.getLogger(__name__)


class Streams:
    """The open streams of one process, and the reader that feeds them.

    `run` has to run for the lifetime of the service.
    """

    def __init__(self, database: Database, shared_limits: SharedLimits, max_per_key: int) -> None:
        self._database = database
        self._slots = StreamSlots(shared_limits, max_per_key)
        self._channels: dict[str, Channel] = {}
        self._is_closed = False
        self._has_subscribers = asyncio.Event()
        self._reader_limiter = CapacityLimiter(1)
        self.page_limiter = CapacityLimiter(4)
        """Limits the database connections of clients that catch up: after a restart, all clients reconnect at once."""

    @property
    def open(self) -> int:
        """Number of open streams."""
        return self._slots.taken

    async def follow(
        self, job_id: str, state: State, after: int, caller: Caller, recheck_key: RecheckKey
    ) -> "EventStream":
        """Return the stream of a job after sequence number `after`.

        Raises ApiError, 429 or 503, if there are too many streams or the process shuts down.
        """
        slot = await self._slots.take(caller.key_id)
        release = partial(self._slots.release, caller.key_id, slot)
        if self._is_closed or self.open > MAX_STREAMS:
            release()
            hint = "Try again in 2 seconds, or read the job's state at intervals."
            detail = "The service cannot open more event streams."
            raise ApiError(503, "too_many_streams", detail, hint, headers={"Retry-After": "2"})
        channel = self._channels.get(job_id) or self._channels.setdefault(job_id, Channel(job_id, state))
        subscriber = Subscriber(channel, min(after, state.newest), caller.key_id, recheck_key, self._read_page)
        channel.subscribers.add(subscriber)
        self._has_subscribers.set()
        return EventStream(subscriber, partial(self._remove, subscriber, release))

    def end(self) -> None:
        """Close all streams and reject new ones, so that the process can exit; clients reconnect to the next one."""
        self._is_closed = True
        for subscriber in self._subscribers():
            subscriber.close()

    async def run(self) -> None:
        """Read new events and maintain the streams until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read_forever())
            group.create_task(self._maintain())
            group.create_task(self._slots.renew_periodically())

    async def _read_forever(self) -> None:
        while await self._has_subscribers.wait():
            try:
                is_behind = await self._read_once()
            except Exception as error:  # the reader survives every database error
                _log.warning("streams", extra={"error": f"{type(error).__name__}: {error}"[:500]})
                is_behind = False
            await asyncio.sleep(0 if is_behind else POLL_SECONDS)

    async def _read_once(self) -> bool:
        """Read what is new for all channels; return whether there is more to read."""
        channels, is_behind = list(self._channels.values()), False
        for start in range(0, len(channels), JOBS_PER_QUERY):
            is_behind |= await self._read_channels(channels[start : start + JOBS_PER_QUERY])
        return is_behind

    async def _read_channels(self, channels: Sequence[Channel]) -> bool:
        positions = {channel.job_id: channel.seq for channel in channels}
        updates = await to_thread.run_sync(_read_updates, self._database, positions, limiter=self._reader_limiter)
        is_behind = False
        for channel in channels:
            if channel.job_id not in updates:
                _close(channel, "job_not_found", "The job was deleted.")
                continue
            state, last, events = updates[channel.job_id]
            channel.publish(state, last, events)
            is_behind |= last < state.newest
        return is_behind

    async def _maintain(self) -> None:
        while True:
            await asyncio.sleep(MAINTENANCE_SECONDS)
            now = time.monotonic()
            for subscriber in self._subscribers():
                if (
                    subscriber.final_event is not None
                    and now - subscriber.closed_at > CLOSE_TIMEOUT_SECONDS
                    and subscriber.task
                ):
                    subscriber.task.cancel()
                elif now - subscriber.pinged_at >= PING_SECONDS:
                    subscriber.ping()
            await self._close_streams_of_invalid_keys()

    async def _close_streams_of_invalid_keys(self) -> None:
        rechecks = {subscriber.key_id: subscriber.recheck_key for subscriber in self._subscribers()}
        for key_id, recheck_key in rechecks.items():
            try:
                await recheck_key()
            except ApiError as invalid:
                for subscriber in self._subscribers():
                    if subscriber.key_id == key_id:
                        subscriber.close(_closed_event(invalid.code, invalid.detail))
            except Exception as error:  # the key counts as valid until the database responds
                _log.warning("streams", extra={"error": type(error).__name__})

    async def _read_page(self, job_id: str, after: int, newest: int) -> tuple[int, Sequence[NumberedEvent]]:
        return await to_thread.run_sync(_read_page, self._database, job_id, after, newest, limiter=self.page_limiter)

    def _subscribers(self) -> list[Subscriber]:
        return [subscriber for channel in self._channels.values() for subscriber in channel.subscribers]

    def _remove(self, subscriber: Subscriber, release: Callable[[], None]) -> None:
        channel = subscriber.channel
        channel.subscribers.discard(subscriber)
        release()
        if not channel.subscribers and self._channels.get(channel.job_id) is channel:
            del self._channels[channel.job_id]
        if not self._channels:
            self._has_subscribers.clear()


class EventStream(Response):
    """Response that sends the events of a subscriber.

    Starlette's and FastAPI's streaming responses would format every event once per client, in additional tasks.
    """

    media_type = "text/event-stream"

    def __init__(self, subscriber: Subscriber, remove: Callable[[], None]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.subscriber, self.remove = subscriber, remove

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the stream ends or the client disconnects."""
        self.subscriber.task = asyncio.current_task()
        disconnect_task = asyncio.create_task(self._wait_for_disconnect(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": RECONNECT, "more_body": True})
            while (chunk := await self.subscriber.next()) is not None:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except asyncio.CancelledError:
            if self.subscriber.final_event is None:
                raise
        finally:
            disconnect_task.cancel()
            self.remove()

    async def _wait_for_disconnect(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.subscriber.close()


def _read_updates(
    database: Database, positions: Mapping[str, int]
) -> dict[str, tuple[State, int, Sequence[NumberedEvent]]]:
    """Return the state of each job, the last sequence number read, and the events up to it."""
    with database.read() as session:
        states = history.read_states(session, positions)
        spans = {
            job_id: (positions[job_id], min(state.newest, positions[job_id] + MAX_SPAN))
            for job_id, state in states.items()
            if state.newest > positions[job_id]
        }
        entries = history.read_entries(session, spans) if spans else {}
    last = dict(positions) | {job_id: end for job_id, (_, end) in spans.items()}
    return {job_id: (state, last[job_id], _encode(entries.get(job_id, ()))) for job_id, state in states.items()}


def _read_page(database: Database, job_id: str, after: int, newest: int) -> tuple[int, Sequence[NumberedEvent]]:
    """Return the last sequence number of the page after `after`, and the events up to it."""
    with database.read() as session:
        last = history.end_of_page(session, job_id, after, newest, PAGE_SIZE)
        entries = history.read_entries(session, {job_id: (after, last)})
    return last, _encode(entries.get(job_id, ()))


def _encode(entries: Sequence[history.Entry]) -> list[NumberedEvent]:
    return [(entry.seq, encode_event(entry.type, entry.data, str(entry.seq))) for entry in entries]


def _close(channel: Channel, code: str, detail: str) -> None:
    for subscriber in channel.subscribers:
        subscriber.close(_closed_event(code, detail))


def _closed_event(code: str, detail: str) -> bytes:
    return encode_event("closed", {"code": code, "detail": detail})
