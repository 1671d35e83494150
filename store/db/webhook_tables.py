"""The tables of webhooks."""

from functools import partial

from sqlalchemy import ForeignKey, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from store.db.database import now
from store.db.idempotency import CreatedOnce
from store.db.ids import new_id
from store.db.tables import Base, Document
from store.states import DeliveryStatus, WebhookEvent, WebhookStatus


class Webhook(CreatedOnce, Base):
    """An address that receives the events of its owner's jobs."""

    __tablename__ = "webhooks"
    id: Mapped[str] = mapped_column(primary_key=True, default=partial(new_id, "webhook"))
    owner: Mapped[str]
    url: Mapped[str]
    """http or https URL without user name and password, normalised."""
    events: Mapped[list[str]]
    """Values of `WebhookEvent` that are sent."""
    secret: Mapped[str]
    """Key of the signatures, `whsec_` and base64; in clear, because signing needs it."""
    created_at: Mapped[float] = mapped_column(default=now())
    failing_since: Mapped[float | None]
    """Time of the first failed attempt since the last success; null: the last attempt succeeded."""
    dead_since: Mapped[float | None]
    """When a delivery was given up first since the last success; null: none was."""

    not_before: Mapped[float | None]
    """No delivery is sent before this time; null: the last attempt succeeded."""

    __table_args__ = (
        Index(None, "created_at", "id"),
        Index(None, "owner", "created_at", "id"),
        Index("uq_webhooks_owner_idempotency_key", "owner", "idempotency_key", unique=True),
    )

    @property
    def status(self) -> WebhookStatus:
        """Whether its deliveries succeed."""
        if self.dead_since is not None:
            return WebhookStatus.DEAD
        return WebhookStatus.ACTIVE if self.failing_since is None else WebhookStatus.FAILING


class WebhookDelivery(Base):
    """An event for a webhook: outbox until it is delivered, log afterwards.

    Inserted in the transaction of the job's transition. It outlives the job.
    """

    __tablename__ = "webhook_deliveries"
    id: Mapped[str] = mapped_column(primary_key=True, default=partial(new_id, "delivery"))
    """Also the header `webhook-id`, equal in all attempts."""
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event: Mapped[WebhookEvent]
    job_id: Mapped[str]
    """The job; not a foreign key, so that the row outlives it."""
    body: Mapped[str] = mapped_column(Text)
    """Body of the request: JSON."""
    status: Mapped[DeliveryStatus] = mapped_column(default=DeliveryStatus.PENDING)
    attempt: Mapped[int] = mapped_column(default=0)
    """Number of the newest attempt; the outcome of an earlier one is not recorded."""
    attempts: Mapped[list[Document]] = mapped_column(default=list)
    """The newest finished attempts, oldest first: `{number, at, status_code, error, duration_seconds}`."""
    created_at: Mapped[float] = mapped_column(default=now())
    retry_since: Mapped[float] = mapped_column(default=now())
    """When the event happened or its redelivery was requested: the start of the 24 h of retries."""
    next_attempt_at: Mapped[float | None] = mapped_column(default=now())
    """Null unless the delivery is pending."""
    sending_until: Mapped[float | None]
    """While an attempt runs: when another sender may repeat it, because its sender has died."""

    __table_args__ = (
        Index(None, "webhook_id", "status", "next_attempt_at"),
        Index(None, "webhook_id", "created_at", "id"),
    )
