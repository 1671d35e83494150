"""Request and response schemas of API keys."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from api.http.schemas import RequestTime, ResponseModel, ResponseTime
from frs.names import Name, OwnerName
from frs.spec_model import Spec
from store.states import Scope

KeyLimit = Annotated[int, Field(ge=1, le=1_000_000)]


class KeyCreate(Spec):
    """A new API key."""

    name: Name
    """Purpose of the key; need not be unique."""
    owner: OwnerName
    """Owner of the key. All keys of an owner have access to the same jobs, data sets and detectors."""
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1, max_length=len(Scope))] = (Scope.SUBMIT,)
    """`read` permits reading; `submit` also creating, changing and deleting; `priority`, beside `submit`, priorities
    above 0; `metrics` GET /metrics alone; `admin` all of them, keys, and the rows of all owners."""
    max_active_jobs: KeyLimit | None = None
    """Maximum number of queued, running and paused jobs of the owner; null: the setting `FRS_MAX_ACTIVE_JOBS`."""
    max_disk_bytes: Annotated[int, Field(ge=1, le=10**18)] | None = None
    """Maximum size of the owner's stored files in bytes; null: the setting `FRS_MAX_DISK_BYTES`."""
    requests_per_minute: KeyLimit | None = None
    """Maximum number of requests a minute; null: the setting `FRS_REQUESTS_PER_MINUTE`."""
    expires_at: RequestTime | None = None
    """Expiry time; null: the key does not expire, unless `expires_in_days` is given."""
    expires_in_days: Annotated[float, Field(gt=0, le=36_500)] | None = None
    """Lifetime in days, as an alternative to `expires_at`."""

    @model_validator(mode="after")
    def _check_expiry(self) -> Self:
        if self.expires_at and self.expires_in_days:
            raise ValueError("give `expires_at` or `expires_in_days`, not both")
        return self


class KeyRotation(Spec):
    """Replacement of an API key."""

    grace_hours: Annotated[float, Field(ge=0, le=8760)] = 24.0
    """Time in hours in which the old key is still valid."""


class Key(ResponseModel):
    """An API key, without its token."""

    id: str
    name: str
    """Purpose of the key."""
    prefix: str
    """First characters of the token, to recognise the key by."""
    owner: str
    scopes: list[Scope]
    max_active_jobs: int | None
    """Maximum number of queued, running and paused jobs of the owner; null: the setting `FRS_MAX_ACTIVE_JOBS`."""
    max_disk_bytes: int | None
    """Maximum size of the owner's stored files in bytes; null: the setting `FRS_MAX_DISK_BYTES`."""
    requests_per_minute: int | None
    """Maximum number of requests a minute; null: the setting `FRS_REQUESTS_PER_MINUTE`."""
    created_at: ResponseTime
    expires_at: ResponseTime | None
    """Null: the key does not expire."""
    revoked_at: ResponseTime | None
    """Null: the key was not revoked."""


class NewKey(Key):
    """A newly created API key, with its token."""

    token: str
    """Secret for the header `Authorization: Bearer TOKEN`; shown only in this response."""
