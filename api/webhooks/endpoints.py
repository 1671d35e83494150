"""Endpoints of webhooks."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.context import ContextDep
from api.http.auth import Reader, Submitter
from api.http.idempotency import IdempotencyKey
from api.http.pagination import Cursor, Limit
from api.http.schemas import DeliveryId, Page, WebhookId
from api.webhooks import service
from api.webhooks.schemas import Delivery, NewWebhook, Webhook, WebhookCreate
from store.states import DeliveryStatus

router = APIRouter(prefix="/webhooks", tags=["webhooks"])


@router.post("", status_code=201)
def create(
    context: ContextDep,
    caller: Submitter,
    response: Response,
    request: WebhookCreate,
    idempotency_key: IdempotencyKey = None,
) -> NewWebhook:
    """Create a webhook, which receives the events of its owner's jobs as signed POST requests.

    The response contains the secret of the signatures (Standard Webhooks), which cannot be retrieved later: a repeated
    request with the same `Idempotency-Key` creates nothing: 409 `already_created` with the id of the webhook.
    """
    webhook = service.create(context, caller, request, idempotency_key)
    response.headers["Location"] = f"/webhooks/{webhook.id}"
    response.headers["Cache-Control"] = "no-store"
    return webhook


@router.get("")
def list_webhooks(context: ContextDep, caller: Reader, limit: Limit = 50, cursor: Cursor = None) -> Page[Webhook]:
    """List webhooks, newest first, without their secrets."""
    return service.list_webhooks(context.database, caller, limit, cursor)


@router.get("/{webhook_id}")
def get_webhook(context: ContextDep, caller: Reader, webhook_id: WebhookId) -> Webhook:
    """Return a webhook, without its secret."""
    return service.get_webhook(context.database, caller, webhook_id)


@router.delete("/{webhook_id}", status_code=204)
def delete(context: ContextDep, caller: Submitter, webhook_id: WebhookId) -> None:
    """Delete a webhook with its deliveries. An attempt that runs may still arrive."""
    service.delete(context.database, caller, webhook_id)


@router.get("/{webhook_id}/deliveries")
def list_deliveries(
    context: ContextDep,
    caller: Reader,
    webhook_id: WebhookId,
    status: Annotated[DeliveryStatus | None, Query(description="Only deliveries in this status.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Delivery]:
    """List the deliveries of a webhook, newest first, with status, error and duration of each attempt.

    The newest 10,000 are kept, for 30 days.
    """
    return service.list_deliveries(context.database, caller, webhook_id, status, limit, cursor)


@router.post("/{webhook_id}/deliveries/{delivery_id}/redeliver", status_code=202)
def redeliver(context: ContextDep, caller: Submitter, webhook_id: WebhookId, delivery_id: DeliveryId) -> Delivery:
    """Send a delivery again now, with the same `webhook-id`, in any status; failed attempts are repeated for 24 h.

    While an attempt runs, its success counts as the redelivery.
    """
    return service.redeliver(context.database, caller, webhook_id, delivery_id)
