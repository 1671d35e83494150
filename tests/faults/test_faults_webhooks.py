"""F25: receivers that are down, slow or wrong, and senders that die, on both databases.

The receivers are real servers on loopback. Times pass by moving those of the deliveries.
"""

import asyncio
import ipaddress
import threading
from contextlib import ExitStack

import pytest
from receivers import Receiver, status, wait_for
from sqlalchemy import select, update

from api.webhooks import sender
from api.webhooks.addresses import CheckedBackend
from api.webhooks.sender import Sender
from api.webhooks.transmission import Transmitter
from store.db.database import Database, open_database
from store.db.webhook_tables import Webhook, WebhookDelivery
from store.jobs import actions
from store.states import DeliveryStatus, WebhookEvent, WebhookStatus
from store.webhooks import deliveries, webhooks

LOOPBACK = ipaddress.ip_network("127.0.0.0/8")


@pytest.fixture
def open_receiver():
    """A function that starts a receiver with the given scripts; the receiver is closed after the test."""
    with ExitStack() as receivers:
        yield lambda *scripts: receivers.enter_context(Receiver(*scripts))


def new_sender(database: Database) -> Sender:
    return Sender(database, Transmitter(CheckedBackend([LOOPBACK])).send)


def add(harness, url: str, owner: str = "admin") -> str:
    return harness.do(webhooks.add, owner, url, [WebhookEvent.CANCELLED], 20).id


def cancel_job(harness, owner: str = "admin") -> str:
    job_id = harness.submit(owner=owner)
    harness.do(actions.cancel, job_id)
    return job_id


def send_due(harness) -> None:
    """Send what is due in a new sender, as after a restart."""

    async def send():
        one = new_sender(harness.database)
        await one.start_due()
        await one.join()

    asyncio.run(send())


def let_pass(harness, seconds: float) -> None:
    row = WebhookDelivery
    earlier = {name: getattr(row, name) - seconds for name in ("retry_since", "next_attempt_at", "sending_until")}
    harness.do(lambda session: session.execute(update(row).values(earlier)))
    harness.do(lambda session: session.execute(update(Webhook).values(not_before=Webhook.not_before - seconds)))


def delivery(harness) -> WebhookDelivery:
    [row] = harness.rows(select(WebhookDelivery))
    return row


def test_an_event_of_a_service_that_died_is_sent_after_its_restart(harness, open_receiver):
    receiver = open_receiver()
    add(harness, receiver.url)
    job_id = cancel_job(harness)
    assert receiver.requests() == []
    send_due(harness)
    [request] = receiver.requests()
    assert job_id.encode() in request.body
    assert delivery(harness).status == DeliveryStatus.DELIVERED


def test_a_receiver_that_answers_500_and_then_200_gets_the_same_message_twice(harness, open_receiver):
    receiver = open_receiver(status(500), status(200))
    add(harness, receiver.url)
    cancel_job(harness)
    send_due(harness)
    send_due(harness)
    assert len(receiver.requests()) == 1, "the second attempt is not due yet"
    let_pass(harness, 60)
    send_due(harness)
    assert [request.headers["webhook-id"] for request in receiver.requests()] == [delivery(harness).id]
    assert [attempt["status_code"] for attempt in delivery(harness).attempts] == [500, 200]
    assert delivery(harness).status == DeliveryStatus.DELIVERED


def test_a_receiver_that_is_down_for_a_day_is_dead_until_a_redelivery_succeeds(harness, open_receiver):
    with Receiver() as down:
        pass
    webhook_id = add(harness, down.url)
    cancel_job(harness)
    attempts = 0
    while delivery(harness).status == DeliveryStatus.PENDING:
        send_due(harness)
        let_pass(harness, deliveries.LONGEST_PAUSE_SECONDS)
        attempts += 1
    assert attempts <= 8
    assert delivery(harness).status == DeliveryStatus.DEAD
    webhook = select(Webhook).where(Webhook.id == webhook_id)
    assert harness.rows(webhook)[0].status == WebhookStatus.DEAD
    up = open_receiver()
    harness.do(lambda session: session.execute(update(Webhook).values(url=up.url)))
    harness.do(deliveries.redeliver, delivery(harness).id)
    send_due(harness)
    assert len(up.requests()) == 1
    assert harness.rows(webhook)[0].status == WebhookStatus.ACTIVE


def test_a_delivery_whose_sender_was_killed_is_sent_again_with_the_same_id(harness, open_receiver):
    end = threading.Event()
    receiver = open_receiver(wait_for(end), status(200))
    add(harness, receiver.url)
    cancel_job(harness)

    async def send_and_die():
        one = asyncio.create_task(new_sender(harness.database).run(poll_seconds=60))
        await asyncio.to_thread(receiver.received.get)
        one.cancel()

    asyncio.run(send_and_die())
    end.set()
    send_due(harness)
    assert receiver.requests() == [], "the claim of the dead sender holds"
    let_pass(harness, deliveries.CLAIM_SECONDS + 1)
    send_due(harness)
    assert [request.headers["webhook-id"] for request in receiver.requests()] == [delivery(harness).id]
    assert [attempt["number"] for attempt in delivery(harness).attempts] == [2]


def test_several_senders_send_each_delivery_once(harness, open_receiver):
    receivers = [open_receiver() for _ in range(4)]
    for receiver in receivers:
        add(harness, receiver.url)
    for _ in range(5):
        cancel_job(harness)
    databases = [open_database(harness.url) for _ in range(3)]

    async def send_all():
        senders = [new_sender(database) for database in databases]
        started = 1
        while started:
            started = sum(await asyncio.gather(*(one.start_due() for one in senders)))
            await asyncio.gather(*(one.join() for one in senders))

    asyncio.run(send_all())
    for database in databases:
        database.engine.dispose()
    for receiver in receivers:
        ids = [request.headers["webhook-id"] for request in receiver.requests()]
        assert len(ids) == len(set(ids)) == 5
    assert {row.status for row in harness.rows(select(WebhookDelivery))} == {DeliveryStatus.DELIVERED}


def test_a_slow_receiver_delays_only_its_own_deliveries(harness, open_receiver):
    end = threading.Event()
    slow, fast = open_receiver(wait_for(end)), open_receiver()
    add(harness, slow.url)
    add(harness, fast.url)
    for _ in range(3):
        cancel_job(harness)

    async def send():
        running = asyncio.create_task(new_sender(harness.database).run(poll_seconds=0.01))
        for _ in range(3):
            await asyncio.to_thread(fast.received.get)
        running.cancel()

    asyncio.run(send())
    assert len(slow.requests()) == 1
    end.set()


def test_an_owner_with_many_slow_receivers_does_not_hold_up_the_others(harness, open_receiver):
    end = threading.Event()
    slow, fast = open_receiver(wait_for(end)), open_receiver()
    for _ in range(sender.MAX_CONCURRENT + 1):
        add(harness, slow.url, "mallory")
    cancel_job(harness, "mallory")
    add(harness, fast.url, "alice")
    cancel_job(harness, "alice")

    async def send():
        running = asyncio.create_task(new_sender(harness.database).run(poll_seconds=60))
        await asyncio.to_thread(fast.received.get)
        for _ in range(sender.MAX_PER_OWNER):
            await asyncio.to_thread(slow.received.get)
        running.cancel()

    asyncio.run(send())
    assert slow.requests() == []
    end.set()


def test_a_failure_of_the_database_delays_a_delivery_and_loses_nothing(harness, open_receiver, monkeypatch):
    """Before the attempt, and after it: then the receiver gets the same message again."""
    receiver = open_receiver()
    add(harness, receiver.url)
    cancel_job(harness)
    failures = iter([OSError("no connection")])
    record = deliveries.record

    def fail_once(*arguments):
        for error in failures:
            raise error
        return record(*arguments)

    monkeypatch.setattr(deliveries, "record", fail_once)
    send_due(harness)
    assert delivery(harness).status == DeliveryStatus.PENDING
    let_pass(harness, deliveries.CLAIM_SECONDS + 1)
    send_due(harness)
    assert {request.headers["webhook-id"] for request in receiver.requests()} == {delivery(harness).id}
    assert delivery(harness).status == DeliveryStatus.DELIVERED


def test_the_sender_survives_a_database_that_does_not_answer(harness, open_receiver, monkeypatch):
    receiver = open_receiver()
    add(harness, receiver.url)
    cancel_job(harness)
    failures = iter([OSError("no connection")] * 3)
    find_due = deliveries.find_due

    def fail_at_first(*arguments):
        for error in failures:
            raise error
        return find_due(*arguments)

    monkeypatch.setattr(deliveries, "find_due", fail_at_first)

    async def send():
        running = asyncio.create_task(new_sender(harness.database).run(poll_seconds=0.01))
        await asyncio.to_thread(receiver.received.get)
        running.cancel()

    asyncio.run(send())


def test_a_redirect_to_a_private_address_ends_at_the_receiver(harness, open_receiver):
    inner = open_receiver()
    receiver = open_receiver(status(307, f"Location: {inner.url}", "Location: http://169.254.169.254/"))
    add(harness, receiver.url)
    cancel_job(harness)
    send_due(harness)
    assert inner.requests() == []
    assert "redirects are not followed" in delivery(harness).attempts[0]["error"]
