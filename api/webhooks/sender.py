"""The sender: a task of each API process that sends due deliveries, off the path of requests."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from anyio import to_thread

from api.context import Context
from api.webhooks.addresses import CheckedBackend
from api.webhooks.mail import MAILTO, Mailer
from api.webhooks.transmission import Transmitter
from store.db.database import Database
from store.webhooks import deliveries
from store.webhooks.deliveries import Claim, DueWebhook, Outcome

MAX_CONCURRENT, MAX_PER_OWNER = 16, 4
"""Attempts at a time, of all owners and of one owner; a webhook has one at a time, so a slow receiver delays only its
own deliveries."""
POLL_SECONDS = 2.0
"""Interval of the query for due deliveries while none is sent."""
REMOVE_SECONDS = 600.0
"""Interval of the removal of old deliveries."""
_log = logging.getLogger(__name__)


async def send_periodically(context: Context) -> None:
    """Send due deliveries until cancelled."""
    transmitter = Transmitter(CheckedBackend(context.settings.webhook_allowed_networks))
    mailer = Mailer(context.settings)

    async def send(claim: Claim) -> Outcome:
        return await (mailer if claim.url.startswith(MAILTO) else transmitter).send(claim)

    await Sender(context.database, send).run(POLL_SECONDS)


class Sender:
    """Claims due deliveries and sends each in a task of its own. Several senders share the work through the claims."""

    def __init__(self, database: Database, send: Callable[[Claim], Awaitable[Outcome]]) -> None:
        """`send` makes one attempt and raises nothing."""
        self._database, self._send = database, send
        self._tasks: dict[asyncio.Task[None], DueWebhook] = {}
        self._finished = asyncio.Event()
        self._remove_at = 0.0

    async def run(self, poll_seconds: float) -> None:
        """Send until cancelled; log errors and try again. A cancelled attempt is repeated when its claim expires."""
        try:
            while True:
                try:
                    await self.start_due()
                    await self._remove_when_due()
                except Exception as error:  # the next round is the retry
                    _log.warning("The webhook sender failed and will retry.", extra={"error": type(error).__name__})
                await self._wait(poll_seconds)
        finally:
            for task in self._tasks:
                task.cancel()

    async def start_due(self) -> int:
        """Claim due deliveries within the limits and start to send them; return their number."""
        started = 0
        for webhook in await to_thread.run_sync(self._find_due):
            if len(self._tasks) < MAX_CONCURRENT and self._running(webhook.owner) < MAX_PER_OWNER:
                claim = await to_thread.run_sync(self._claim, webhook.id)
                if claim is not None:
                    self._start(webhook, claim)
                    started += 1
        return started

    async def join(self) -> None:
        """Wait for the attempts that run."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, webhook: DueWebhook, claim: Claim) -> None:
        task = asyncio.create_task(self._attempt(claim))
        self._tasks[task] = webhook
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self._finished.set()

    async def _attempt(self, claim: Claim) -> None:
        outcome = await self._send(claim)
        try:
            await to_thread.run_sync(self._record, claim, outcome)
        except Exception as error:  # the claim expires, and the delivery is sent again
            _log.warning("The outcome of a delivery was not recorded.", extra={"error": type(error).__name__})

    async def _wait(self, seconds: float) -> None:
        """Wait until an attempt has ended, at most for the given time."""
        try:
            async with asyncio.timeout(seconds):
                await self._finished.wait()
        except TimeoutError:
            pass
        self._finished.clear()

    async def _remove_when_due(self) -> None:
        if time.monotonic() >= self._remove_at:
            self._remove_at = time.monotonic() + REMOVE_SECONDS
            await to_thread.run_sync(self._remove_old)

    def _running(self, owner: str) -> int:
        return Counter(webhook.owner for webhook in self._tasks.values())[owner]

    def _find_due(self) -> list[DueWebhook]:
        busy = [webhook.id for webhook in self._tasks.values()]
        with self._database.read() as session:
            return deliveries.find_due(session, busy)

    def _claim(self, webhook_id: str) -> Claim | None:
        with self._database.write() as session:
            claim = deliveries.claim(session, webhook_id)
            session.commit()
        return claim

    def _record(self, claim: Claim, outcome: Outcome) -> None:
        with self._database.write() as session:
            deliveries.record(session, claim, outcome)
            session.commit()

    def _remove_old(self) -> None:
        with self._database.write() as session:
            deliveries.remove_old(session)
            session.commit()
