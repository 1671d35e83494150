"""Create, list and delete webhooks; list and repeat their deliveries."""

from pydantic import HttpUrl
from sqlalchemy import delete as delete_from
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.context import Context
from api.http.auth import Caller
from api.http.errors import InvalidField, NotFoundError
from api.http.pagination import newest_first
from api.http.schemas import Page
from api.webhooks.addresses import NOT_ALLOWED, is_allowed, literal_address
from api.webhooks.mail import refusal
from api.webhooks.schemas import Delivery, NewWebhook, Webhook, WebhookCreate
from store.db import audit, webhook_tables
from store.db.database import Database
from store.db.idempotency import Idempotency
from store.db.webhook_tables import WebhookDelivery
from store.settings import Settings
from store.states import DeliveryStatus
from store.webhooks import deliveries, webhooks


def create(context: Context, caller: Caller, request: WebhookCreate, idempotency_key: str | None) -> NewWebhook:
    """Create a webhook and return it with its secret.

    Raises InvalidField if the URL's address is not allowed, TooManyWebhooks, AlreadyCreated and IdempotencyKeyReused.
    """
    idempotency, maximum = Idempotency.of(idempotency_key, request), context.settings.max_webhooks
    host = _check_url(request.url, context.settings)
    with context.database.write() as session:
        webhook = webhooks.add(session, caller.owner, str(request.url), request.events, maximum, idempotency)
        session.refresh(webhook)
        # The URL's path and query may contain a secret of the receiver.
        audit.record(session, caller.actor, "webhook.create", [webhook.id], host=host, events=webhook.events)
        session.commit()
    return NewWebhook.model_validate(webhook)


def list_webhooks(database: Database, caller: Caller, limit: int, cursor: str | None) -> Page[Webhook]:
    """Return a page of webhooks, newest first. Raises InvalidField for an invalid cursor."""
    with database.read() as session:
        query = select(webhook_tables.Webhook).where(caller.visible(webhook_tables.Webhook))
        rows, next_cursor = newest_first(session, query, webhook_tables.Webhook, limit, cursor)
    return Page(data=[Webhook.model_validate(row) for row in rows], next_cursor=next_cursor)


def get_webhook(database: Database, caller: Caller, webhook_id: str) -> Webhook:
    """Return a webhook. Raises NotFoundError."""
    with database.read() as session:
        return Webhook.model_validate(_get_row(session, caller, webhook_id))


def delete(database: Database, caller: Caller, webhook_id: str) -> None:
    """Delete a webhook with its deliveries. Raises NotFoundError."""
    with database.write() as session:
        webhook = _get_row(session, caller, webhook_id)
        session.execute(delete_from(webhook_tables.Webhook).where(webhook_tables.Webhook.id == webhook.id))
        audit.record(session, caller.actor, "webhook.delete", [webhook.id])
        session.commit()


def list_deliveries(
    database: Database, caller: Caller, webhook_id: str, status: DeliveryStatus | None, limit: int, cursor: str | None
) -> Page[Delivery]:
    """Return a page of deliveries, newest first. Raises NotFoundError, and InvalidField for an invalid cursor."""
    with database.read() as session:
        webhook = _get_row(session, caller, webhook_id)
        query = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook.id)
        if status is not None:
            query = query.where(WebhookDelivery.status == status)
        rows, next_cursor = newest_first(session, query, WebhookDelivery, limit, cursor)
    return Page(data=[Delivery.model_validate(row) for row in rows], next_cursor=next_cursor)


def redeliver(database: Database, caller: Caller, webhook_id: str, delivery_id: str) -> Delivery:
    """Send a delivery again, with new retries, and return it. Raises NotFoundError."""
    with database.write() as session:
        webhook = _get_row(session, caller, webhook_id)
        delivery = session.get(WebhookDelivery, delivery_id)
        if delivery is None or delivery.webhook_id != webhook.id:
            hint = "List the deliveries of the webhook; old ones are removed."
            raise NotFoundError("delivery_not_found", "The webhook has no delivery of this id.", hint)
        delivery = deliveries.redeliver(session, delivery.id)
        audit.record(session, caller.actor, "webhook.redeliver", [delivery.id], webhook=webhook.id)
        session.commit()
    return Delivery.model_validate(delivery)


def _check_url(url: HttpUrl | str, settings: Settings) -> str:
    """Return the host, of a mail the domain. Raises InvalidField if the operator does not allow it.

    A host name is resolved and checked at each attempt.
    """
    if isinstance(url, str):
        if error := refusal(url, settings):
            raise InvalidField("url", "webhook_address_not_allowed", error, "Use another address, or a web URL.")
        return url.rpartition("@")[2]
    _check_literal_address(url.host or "", settings)
    return url.host or ""


def _check_literal_address(host: str, settings: Settings) -> None:
    """Raise InvalidField if the host is an address that is not allowed."""
    address = literal_address(host)
    if address is not None and not is_allowed(address, settings.webhook_allowed_networks):
        hint = "Use a URL that is reachable from the internet, or ask an operator to allow the network."
        raise InvalidField("url", "webhook_address_not_allowed", NOT_ALLOWED, hint)


def _get_row(session: Session, caller: Caller, webhook_id: str) -> webhook_tables.Webhook:
    webhook = session.get(webhook_tables.Webhook, webhook_id)
    if webhook is None or not caller.may_see(webhook):
        raise NotFoundError("webhook_not_found", "There is no webhook of this id.", "List your webhooks.")
    return webhook
