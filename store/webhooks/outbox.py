"""The outbox: a job's transition and the deliveries of its event are written in one transaction."""

import json
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.db.database import time_of
from store.db.tables import Document, Job
from store.db.webhook_tables import Webhook, WebhookDelivery
from store.states import JobStatus, WebhookEvent

EVENT_OF_STATUS = {
    JobStatus.RUNNING: WebhookEvent.STARTED,
    JobStatus.PAUSED: WebhookEvent.PAUSED,
    JobStatus.SUCCEEDED: WebhookEvent.SUCCEEDED,
    JobStatus.FAILED: WebhookEvent.FAILED,
    JobStatus.CANCELLED: WebhookEvent.CANCELLED,
}
"""The event of each new status that is sent; a job that is queued sends none."""


def add_deliveries(session: Session, job: Job) -> None:
    """Add a delivery of the job's new status for each webhook of its owner that receives this event."""
    event = EVENT_OF_STATUS.get(job.status)
    if event is None:
        return
    webhooks = [webhook for webhook in _webhooks_of(session, job.owner) if event in webhook.events]
    if webhooks:
        body = _body(job, event, time_of(session))
        session.add_all(
            WebhookDelivery(webhook_id=webhook.id, event=event, job_id=job.id, body=body) for webhook in webhooks
        )


def _webhooks_of(session: Session, owner: str) -> list[Webhook]:
    """Return the webhooks, locked against deletion only: a delivery of a deleted one would fail the transition."""
    query = select(Webhook).where(Webhook.owner == owner).order_by(Webhook.id)
    return list(session.scalars(query.with_for_update(read=True, key_share=True)))


def _body(job: Job, event: WebhookEvent, at: float) -> str:
    """Return the JSON text of an event, in the form of Standard Webhooks: `type`, `timestamp`, `data`."""
    data: Document = {
        "id": job.id,
        "name": job.name,
        "kind": job.kind,
        "owner": job.owner,
        "tags": job.tags,
        "parent_id": job.parent_id,
        "status": job.status,
        "attempt": job.attempt,
        "end_reason": job.end_reason,
        "error": job.error,
    }
    timestamp = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
    return json.dumps({"type": event, "timestamp": timestamp, "data": data})
