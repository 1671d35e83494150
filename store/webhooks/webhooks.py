"""Add, find and delete webhooks."""

import base64
import secrets
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store.db.api_keys import lock_owner
from store.db.idempotency import Idempotency, columns, refuse_repeated
from store.db.webhook_tables import Webhook
from store.errors import TooManyWebhooks
from store.states import WebhookEvent

_SECRET_BYTES = 32


def add(
    session: Session,
    owner: str,
    url: str,
    events: Sequence[WebhookEvent],
    max_webhooks: int,
    idempotency: Idempotency | None = None,
) -> Webhook:
    """Add a webhook with a new secret and return it; the caller has checked the URL.

    Raises TooManyWebhooks if the owner has `max_webhooks` already, AlreadyCreated and IdempotencyKeyReused.
    """
    lock_owner(session, owner)
    refuse_repeated(session, Webhook, owner, idempotency)
    count = session.scalar(select(func.count()).select_from(Webhook).where(Webhook.owner == owner)) or 0
    if count >= max_webhooks:
        raise TooManyWebhooks(f"The owner {owner} has {count} webhooks, the maximum.")
    values = {"url": url, "events": [str(event) for event in events], "secret": _new_secret()}
    webhook = Webhook(owner=owner, **values, **columns(idempotency))
    session.add(webhook)
    session.flush()
    return webhook


def _new_secret() -> str:
    """Return a new random secret in the form of Standard Webhooks."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()}"
