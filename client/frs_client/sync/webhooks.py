# Written by `make client` from aio/webhooks.py: change that file.
"""`client.webhooks`."""

from collections.abc import Collection, Iterator

from frs_client.answers import Json, parse
from frs_client.models import Delivery, NewWebhook, Webhook
from frs_client.requests import PAGE_ROWS, path_of
from frs_client.sync.transport import Transport


class Webhooks:
    """Webhooks: URLs to which the service sends the events of the owner's jobs, signed (Standard Webhooks)."""

    def __init__(self, client: Transport) -> None:
        self._client = client

    def create(
        self, url: str, events: Collection[str] | None = None, *, idempotency_key: str | None = None
    ) -> NewWebhook:
        """Create a webhook; its `secret`, with which the receiver verifies, is shown once.

        `events` such as `job.succeeded`; None: those of jobs that end. The service carries the request out once: see
        `jobs.submit`. If the first answer was lost, raises ApiError `already_created` with the id of the webhook.
        """
        body: Json = {"url": url} if events is None else {"url": url, "events": [*events]}
        return parse(NewWebhook, self._client.post("/webhooks", body, key=idempotency_key))

    def list(self) -> Iterator[Webhook]:
        """Yield the webhooks, newest first."""
        for row in self._client.each("/webhooks"):
            yield parse(Webhook, row)

    def get(self, webhook_id: str) -> Webhook:
        """Return a webhook, without its secret."""
        return parse(Webhook, self._client.get(path_of("webhooks", webhook_id)))

    def deliveries(self, webhook_id: str, status: str | None = None) -> Iterator[Delivery]:
        """Yield the deliveries of a webhook, newest first; `status`: pending, delivered or dead."""
        path = path_of("webhooks", webhook_id, "deliveries")
        for row in self._client.each(path, status=status, limit=PAGE_ROWS):
            yield parse(Delivery, row)

    def redeliver(self, webhook_id: str, delivery_id: str) -> Delivery:
        """Send a delivery again now; failed attempts are repeated for 24 hours."""
        path = path_of("webhooks", webhook_id, "deliveries", delivery_id, "redeliver")
        return parse(Delivery, self._client.post(path))

    def delete(self, webhook_id: str) -> None:
        """Delete a webhook and the list of its deliveries."""
        self._client.delete(path_of("webhooks", webhook_id))
