"""Request and response schemas of webhooks."""

import json
import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    HttpUrl,
    Tag,
    UrlConstraints,
    WithJsonSchema,
    field_validator,
)

from api.http.schemas import ResponseModel, ResponseTime
from frs.spec_model import Spec
from store.settings import MAIL_ADDRESS
from store.states import DeliveryStatus, WebhookEvent, WebhookStatus

MAX_URL_LENGTH = 2000
_MAILTO = "mailto:"


def _check_url(url: HttpUrl) -> HttpUrl:
    if url.username is not None or url.password is not None:
        raise ValueError("must not contain a user name or password; receivers verify the signature instead")
    return url


def _check_mail_url(url: str) -> str:
    if not re.fullmatch(f"{_MAILTO}{MAIL_ADDRESS}", url):
        raise ValueError("must be `mailto:` and one plain address, such as mailto:alice@example.org")
    return url


def _kind(url: Any) -> str:
    return "mail" if isinstance(url, str) and url.startswith(_MAILTO) else "web"


def _without_repeats(events: tuple[WebhookEvent, ...]) -> tuple[WebhookEvent, ...]:
    return tuple(dict.fromkeys(events))


_WebUrl = Annotated[
    HttpUrl,
    UrlConstraints(max_length=MAX_URL_LENGTH),
    AfterValidator(_check_url),
    WithJsonSchema({"type": "string", "format": "uri", "pattern": "^https?:", "maxLength": MAX_URL_LENGTH}),
    Tag("web"),
]
_MailUrl = Annotated[
    str,
    AfterValidator(_check_mail_url),
    WithJsonSchema({"type": "string", "pattern": f"^{_MAILTO}{MAIL_ADDRESS}$"}),
    Tag("mail"),
]
Url = Annotated[_WebUrl | _MailUrl, Discriminator(_kind)]
Events = Annotated[
    tuple[WebhookEvent, ...], Field(min_length=1, max_length=len(WebhookEvent)), AfterValidator(_without_repeats)
]


class WebhookCreate(Spec):
    """A new webhook."""

    url: Url
    """http or https URL that receives the events. Its host must have public addresses only, or addresses in
    `FRS_WEBHOOK_ALLOWED_NETWORKS`. Redirects are not followed. Or `mailto:ADDRESS`, if the operator has set a mail
    server."""
    events: Events = (WebhookEvent.SUCCEEDED, WebhookEvent.FAILED, WebhookEvent.CANCELLED)
    """Events to send."""


class Webhook(ResponseModel):
    """An address that receives the events of its owner's jobs, without its secret."""

    id: str
    owner: str
    url: str
    events: list[WebhookEvent]
    status: WebhookStatus
    """`failing`: the last attempt failed. `dead`: a delivery was given up, and none has succeeded since."""
    created_at: ResponseTime
    failing_since: ResponseTime | None
    """Time of the first failed attempt since the last success; null: the last attempt succeeded."""
    dead_since: ResponseTime | None
    """When a delivery was given up first since the last success; null: none was."""


class NewWebhook(Webhook):
    """A newly created webhook, with its secret."""

    secret: str
    """Key of the signatures, for the receiver; shown only in this response."""


class DeliveryAttempt(ResponseModel):
    """One attempt to send a delivery."""

    number: int
    at: ResponseTime
    status_code: int | None
    """HTTP status of the receiver's answer; null: there was no answer, or the delivery is a mail."""
    error: str | None
    """Why the attempt failed; null: it succeeded."""
    duration_seconds: float


class Delivery(ResponseModel):
    """An event for a webhook, and the attempts to send it."""

    id: str
    """Also the header `webhook-id`, equal in all attempts."""
    webhook_id: str
    event: WebhookEvent
    job_id: str
    status: DeliveryStatus
    attempt: int
    """Number of the newest attempt; 0 until the first one."""
    attempts: list[DeliveryAttempt]
    """The newest 20 attempts that have ended, oldest first."""
    body: dict[str, Any]
    """Body of the request."""
    created_at: ResponseTime
    next_attempt_at: ResponseTime | None
    """Null unless the delivery is pending."""

    @field_validator("body", mode="before")
    @classmethod
    def _parse_body(cls, value: Any) -> Any:
        return json.loads(value) if isinstance(value, str) else value
