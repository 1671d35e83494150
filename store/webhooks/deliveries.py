"""Deliveries of events: claim, outcome, retries, redelivery, removal of old ones.

A sender claims a delivery with one guarded UPDATE that takes its next attempt number, sends it without a session, and
records the outcome under this number. A sender that dies lets its claim expire; the next one sends the same
`webhook-id` again. Each function takes a session of `Database.write` and leaves the commit to its caller.
"""

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Select, delete, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from store.db.database import now, time_of
from store.db.tables import Document
from store.db.webhook_tables import Webhook, WebhookDelivery
from store.states import DeliveryStatus

RETRY_SECONDS = 86_400.0
"""A failed delivery is attempted again for this time; its last attempt is at the end."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 10.0, 4 * 3600.0
"""Shortest and longest pause between two attempts, before jitter."""
CLAIM_SECONDS = 60.0
"""Time after which an attempt without an outcome is repeated; longer than any attempt takes."""
MAX_ATTEMPTS_LOGGED = 20
"""Attempts that a delivery lists; the earlier ones are dropped."""
KEEP_SECONDS, KEEP_DELIVERIES = 30 * 86_400.0, 10_000
"""Age of the oldest, and number of the newest deliveries of a webhook that are kept."""
_is_due = (
    WebhookDelivery.status == DeliveryStatus.PENDING,
    WebhookDelivery.next_attempt_at <= now(),
    or_(WebhookDelivery.sending_until.is_(None), WebhookDelivery.sending_until < now()),
)


@dataclass(frozen=True)
class DueWebhook:
    """A webhook with a delivery to send now."""

    id: str
    owner: str


@dataclass(frozen=True)
class Claim:
    """The right to make one attempt of a delivery, and what it sends."""

    delivery_id: str
    webhook_id: str
    attempt: int
    url: str
    secret: str = field(repr=False)
    body: str
    at: float
    """Time of the attempt on the database's clock."""


@dataclass(frozen=True)
class Outcome:
    """The result of one attempt."""

    status_code: int | None
    """Null: there was no answer."""
    error: str | None
    """Why the attempt failed; null: it succeeded."""
    duration_seconds: float


def find_due(session: Session, busy: Collection[str]) -> list[DueWebhook]:
    """Return webhooks with a delivery to send now, except the `busy` ones; those that wait longest first.

    A webhook whose last attempt failed is left out for `FIRST_PAUSE_SECONDS`, so that a long log of a broken receiver
    does not occupy the database.
    """
    first = _first_due(WebhookDelivery.next_attempt_at, Webhook.id).correlate(Webhook).scalar_subquery()
    may_send = (Webhook.id.not_in(busy), or_(Webhook.not_before.is_(None), Webhook.not_before <= now()))
    webhooks = select(Webhook.id, Webhook.owner, first.label("due_at")).where(*may_send).subquery()
    query = select(webhooks.c.id, webhooks.c.owner).where(webhooks.c.due_at.is_not(None))
    return [DueWebhook(id, owner) for id, owner in session.execute(query.order_by(webhooks.c.due_at))]


def claim(session: Session, webhook_id: str) -> Claim | None:
    """Claim the first due delivery of the webhook; None if there is none, or if another sender has just claimed it."""
    first = _first_due(WebhookDelivery.id, webhook_id).scalar_subquery()
    statement = (
        update(WebhookDelivery)
        .where(WebhookDelivery.id == first, *_is_due)
        .values(attempt=WebhookDelivery.attempt + 1, sending_until=now() + CLAIM_SECONDS)
        .returning(WebhookDelivery.id, WebhookDelivery.attempt, WebhookDelivery.body)
        .execution_options(synchronize_session=False)
    )
    row = session.execute(statement).one_or_none()
    webhook = session.get(Webhook, webhook_id)
    if row is None or webhook is None:
        return None
    return Claim(row.id, webhook_id, row.attempt, webhook.url, webhook.secret, row.body, time_of(session))


def record(
    session: Session, claim: Claim, outcome: Outcome, jitter: Callable[[], float] = lambda: random.uniform(0.75, 1.25)
) -> DeliveryStatus | None:
    """Record the outcome of an attempt and schedule the next one if it failed; return the new status.

    None, without a change: a later attempt was claimed, or the webhook was deleted. `jitter` is the factor of the pause
    before the next attempt.
    """
    webhook = session.get(Webhook, claim.webhook_id, with_for_update={"key_share": True})
    delivery = session.get(WebhookDelivery, claim.delivery_id, with_for_update=True)
    if webhook is None or delivery is None or delivery.attempt != claim.attempt:
        return None
    at = time_of(session)
    delivery.attempts = [*delivery.attempts, _log_entry(claim, outcome)][-MAX_ATTEMPTS_LOGGED:]
    delivery.sending_until = None
    if outcome.error is None:
        delivery.status, delivery.next_attempt_at = DeliveryStatus.DELIVERED, None
        webhook.failing_since = webhook.dead_since = webhook.not_before = None
        return delivery.status
    webhook.failing_since = webhook.failing_since or at
    webhook.not_before = at + FIRST_PAUSE_SECONDS
    delivery.next_attempt_at = next_attempt(delivery.retry_since, at, jitter())
    if delivery.next_attempt_at is None:
        delivery.status = DeliveryStatus.DEAD
        webhook.dead_since = webhook.dead_since or at
    return delivery.status


def next_attempt(retry_since: float, at: float, jitter: float) -> float | None:
    """Return the time of the attempt after one that failed at the time `at`; None: give up.

    The pause is twice the time since the start, so each attempt is at about three times the time of the one before: 10
    s, 30 s, 90 s, ... The last one is after `RETRY_SECONDS`.
    """
    deadline = retry_since + RETRY_SECONDS
    if at >= deadline:
        return None
    pause = min(max(2 * (at - retry_since), FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
    return min(at + pause * jitter, deadline)


def redeliver(session: Session, delivery_id: str) -> WebhookDelivery:
    """Send the delivery again now, in any status, with new retries; return it.

    While an attempt runs, the next one waits for its outcome, and a success is the redelivery.
    """
    statement = (
        update(WebhookDelivery)
        .where(WebhookDelivery.id == delivery_id)
        .values(status=DeliveryStatus.PENDING, retry_since=now(), next_attempt_at=now())
        .returning(WebhookDelivery)
    )
    return session.scalars(statement, execution_options={"populate_existing": True}).one()


def remove_old(session: Session) -> None:
    """Remove deliveries that have ended and are older than `KEEP_SECONDS`, and all beyond `KEEP_DELIVERIES`."""
    ended = WebhookDelivery.status != DeliveryStatus.PENDING
    session.execute(delete(WebhookDelivery).where(ended, WebhookDelivery.created_at < now() - KEEP_SECONDS))
    for webhook_id in session.scalars(select(Webhook.id)).all():
        of_webhook = WebhookDelivery.webhook_id == webhook_id
        newest_first = select(WebhookDelivery.created_at).where(of_webhook).order_by(WebhookDelivery.created_at.desc())
        oldest_kept = session.scalar(newest_first.offset(KEEP_DELIVERIES - 1).limit(1))
        if oldest_kept is not None:
            session.execute(delete(WebhookDelivery).where(of_webhook, WebhookDelivery.created_at < oldest_kept))


def _first_due(column: InstrumentedAttribute[Any], webhook_id: str | InstrumentedAttribute[str]) -> Select[Any]:
    """Return the query of a column of the webhook's delivery that has been due longest."""
    query = select(column).where(WebhookDelivery.webhook_id == webhook_id, *_is_due)
    return query.order_by(WebhookDelivery.next_attempt_at, WebhookDelivery.id).limit(1)


def _log_entry(claim: Claim, outcome: Outcome) -> Document:
    return {
        "number": claim.attempt,
        "at": claim.at,
        "status_code": outcome.status_code,
        "error": outcome.error,
        "duration_seconds": outcome.duration_seconds,
    }
