"""Live streams of jobs: one reader a process asks the database what is new, each client has a bounded queue.

Whoever does not keep up loses its queue, never an event: it reads on from the database, where it was. So do clients
that come late or again, until they have caught up with the reader. The one asynchronous part of the service.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from anyio import CapacityLimiter, to_thread
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.http.auth import Caller, RecheckKey
from api.http.errors import ApiError
from api.streaming import history
from api.streaming.history import State
from api.streaming.subscribers import PING_SECONDS, Channel, NumberedEvent, Subscriber, wire
from store.db.database import Database

POLL_SECONDS = 0.25
MAINTENANCE_SECONDS = 0.5
"""Between two looks whether the keys are still good; a key is remembered for a second besides."""
DATABASE_TIMEOUT_SECONDS = 1.0
"""For a client to take its last event before its connection is cut."""
PAGE = 200
"""Events, and batches of metrics, that are read at a time for one that is behind."""
MAX_SPAN = 50
"""As many numbers of each job the reader reads at a time."""
JOBS_PER_QUERY = 500
"""Jobs the reader asks about in one query."""
MAX_STREAMS = 5_000
"""Streams of one process."""
RECONNECT = b"retry: 1000\n\n"
_log = logging.getLogger(__name__)


class Streams:
    """`run` for as long as the service lives."""

    def __init__(self, database: Database, most_per_key: int) -> None:
        self._database, self._most_per_key = database, most_per_key
        self._channels: dict[str, Channel] = {}
        self._of_key: Counter[str] = Counter()
        self._ended = False
        self._followed = asyncio.Event()
        self._reading = CapacityLimiter(1)
        self.paging = CapacityLimiter(4)
        """Threads for clients that come: after a restart all do at once, and others want connections too."""

    @property
    def open(self) -> int:
        return self._of_key.total()

    def follow(self, job_id: str, state: State, after: int, caller: Caller, still_known: RecheckKey) -> "EventStream":
        """Raises ApiError where there are too many already."""
        self._refuse_too_many(caller)
        channel = self._channels.get(job_id) or self._channels.setdefault(job_id, Channel(job_id, state))
        follower = Subscriber(channel, min(after, state.newest), caller.key_id, still_known, self._read_page)
        channel.followers.add(follower)
        self._of_key[caller.key_id] += 1
        self._followed.set()
        return EventStream(follower, partial(self._leave, follower))

    def end(self) -> None:
        """Ends every stream now and lets no new one begin, so that the process can: clients come back to the next."""
        self._ended = True
        for follower in self._followers():
            follower.close()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read_on())
            group.create_task(self._attend())

    async def _read_on(self) -> None:
        while await self._followed.wait():
            try:
                is_behind = await self._read_once()
            except Exception as error:  # whatever the database does, the reader lives
                _log.warning("streams", extra={"error": f"{type(error).__name__}: {error}"[:500]})
                is_behind = False
            await asyncio.sleep(0 if is_behind else POLL_SECONDS)

    async def _read_once(self) -> bool:
        """Whether there is more."""
        channels, is_behind = list(self._channels.values()), False
        for start in range(0, len(channels), JOBS_PER_QUERY):
            is_behind |= await self._read_some(channels[start : start + JOBS_PER_QUERY])
        return is_behind

    async def _read_some(self, channels: Sequence[Channel]) -> bool:
        known = {channel.job_id: channel.seq for channel in channels}
        found = await to_thread.run_sync(_look, self._database, known, limiter=self._reading)
        is_behind = False
        for channel in channels:
            if channel.job_id not in found:
                _close(channel, "job_not_found", "The job was deleted.")
                continue
            state, upto, news = found[channel.job_id]
            channel.take(state, upto, news)
            is_behind |= upto < state.newest
        return is_behind

    async def _attend(self) -> None:
        while True:
            await asyncio.sleep(MAINTENANCE_SECONDS)
            now = time.monotonic()
            for follower in self._followers():
                if (
                    follower.last_words is not None
                    and now - follower.closed_at > DATABASE_TIMEOUT_SECONDS
                    and follower.task
                ):
                    follower.task.cancel()
                elif now - follower.pinged_at >= PING_SECONDS:
                    follower.ping()
            await self._close_those_of_bad_keys()

    async def _close_those_of_bad_keys(self) -> None:
        for key_id, still_known in {follower.key_id: follower.still_known for follower in self._followers()}.items():
            try:
                await still_known()
            except ApiError as refusal:
                for follower in self._followers():
                    if follower.key_id == key_id:
                        follower.close(_closed(refusal.code, refusal.detail))
            except Exception as error:  # nobody knows: the key stays good until the database says otherwise
                _log.warning("streams", extra={"error": type(error).__name__})

    async def _read_page(self, job_id: str, after: int, newest: int) -> tuple[int, Sequence[NumberedEvent]]:
        return await to_thread.run_sync(_page, self._database, job_id, after, newest, limiter=self.paging)

    def _refuse_too_many(self, caller: Caller) -> None:
        if self._ended or self.open >= MAX_STREAMS:
            hint = "Try again in 2 seconds, or poll GET /jobs/{id}."
            raise ApiError(503, "too_many_streams", "No more streams now.", hint, headers={"Retry-After": "2"})
        if self._of_key[caller.key_id] >= self._most_per_key:
            detail = f"This key has {self._most_per_key} streams open."
            raise ApiError(429, "too_many_streams", detail, "Close one first.", headers={"Retry-After": "2"})

    def _followers(self) -> list[Subscriber]:
        return [follower for channel in self._channels.values() for follower in channel.followers]

    def _leave(self, follower: Subscriber) -> None:
        channel = follower.channel
        channel.followers.discard(follower)
        self._of_key[follower.key_id] -= 1
        if not channel.followers and self._channels.get(channel.job_id) is channel:
            del self._channels[channel.job_id]
        if not self._channels:
            self._followed.clear()


class EventStream(Response):
    """Not the framework's: there every client would format every event anew, in tasks of its own."""

    media_type = "text/event-stream"

    def __init__(self, follower: Subscriber, leave: Callable[[], None]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._follower, self._leave = follower, leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._follower.task = asyncio.current_task()
        leaving = asyncio.create_task(self._notice_leaving(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": RECONNECT, "more_body": True})
            while (chunk := await self._follower.next()) is not None:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except asyncio.CancelledError:
            if self._follower.last_words is None:
                raise
        finally:
            leaving.cancel()
            self._leave()

    async def _notice_leaving(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._follower.close()


def _look(database: Database, known: Mapping[str, int]) -> dict[str, tuple[State, int, Sequence[NumberedEvent]]]:
    with database.read() as session:
        states = history.states(session, known)
        spans = {
            job_id: (known[job_id], min(state.newest, known[job_id] + MAX_SPAN))
            for job_id, state in states.items()
            if state.newest > known[job_id]
        }
        news = history.entries(session, spans) if spans else {}
    upto = dict(known) | {job_id: end for job_id, (_, end) in spans.items()}
    return {job_id: (state, upto[job_id], _numbered(news.get(job_id, ()))) for job_id, state in states.items()}


def _page(database: Database, job_id: str, after: int, newest: int) -> tuple[int, Sequence[NumberedEvent]]:
    with database.read() as session:
        upto = history.end_of_page(session, job_id, after, newest, PAGE)
        found = history.entries(session, {job_id: (after, upto)})
    return upto, _numbered(found.get(job_id, ()))


def _numbered(entries: Sequence[history.Entry]) -> list[NumberedEvent]:
    return [(entry.seq, wire(entry.type, entry.data, str(entry.seq))) for entry in entries]


def _close(channel: Channel, code: str, detail: str) -> None:
    for follower in channel.followers:
        follower.close(_closed(code, detail))


def _closed(code: str, detail: str) -> bytes:
    return wire("closed", {"code": code, "detail": detail})
