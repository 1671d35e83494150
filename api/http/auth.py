"""The caller of a request: its API key, owner and scopes.

Every route outside `auth_middleware.PUBLIC_PATHS` declares `Reader`, `Submitter`, `MetricsReader` or `Admin` as a
parameter.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query, Request
from sqlalchemy import ColumnElement, true
from sqlalchemy.orm import Session

from api.http.errors import ApiError
from store.db import queries
from store.db.audit import Actor
from store.db.sweep_tables import Sweep
from store.db.tables import Dataset, Detector, Job, WorkerRequest
from store.db.webhook_tables import Webhook
from store.states import Scope

Owned = Job | Dataset | Detector | WorkerRequest | Sweep | Webhook
"""Rows that belong to an owner."""


@dataclass(frozen=True)
class Caller:
    """The API key of a request, and the rows it gives access to."""

    key_id: str
    owner: str
    scopes: frozenset[Scope]
    """The scopes of the key and those that they include."""
    max_active_jobs: int | None = None
    """Limit of the key; None: the limit of the settings."""
    requests_per_minute: int | None = None
    """Limit of the key; None: the limit of the settings."""
    max_disk_bytes: int | None = None
    """Limit of the key; None: the limit of the settings."""
    address: str | None = None
    """Network address of the client."""
    request_id: str | None = None

    @property
    def actor(self) -> Actor:
        """The caller as it is recorded in the audit trail."""
        return Actor(self.owner, self.key_id, self.address, self.request_id)

    @property
    def is_admin(self) -> bool:
        """Whether the key has the scope `admin`."""
        return Scope.ADMIN in self.scopes

    def require(self, scope: Scope, request: str = "This request") -> None:
        """Raise ApiError, 403, unless the key has the scope; `request` is the subject of the message."""
        if scope not in self.scopes:
            hint = "Use a key that has this scope; an admin can create one."
            raise ApiError(403, "scope_missing", f"{request} needs a key with the scope `{scope}`.", hint)

    def may_see(self, row: Owned) -> bool:
        """Return whether the caller owns the row or is an admin."""
        return self.is_admin or row.owner == self.owner

    def find_dataset(self, session: Session, id_or_name: str) -> Dataset | None:
        """Return the data set of this id or name; None if there is none that the caller may see."""
        return queries.find_dataset(session, id_or_name, self.owner, all_owners=self.is_admin)

    def find_detector(self, session: Session, id_or_name: str) -> Detector | None:
        """Return the detector of this id or name; None if there is none that the caller may see."""
        return queries.find_detector(session, id_or_name, self.owner, all_owners=self.is_admin)

    def find_job(self, session: Session, job_id: str) -> Job | None:
        """Return the job of this id; None if there is none that the caller may see."""
        job = session.get(Job, job_id)
        return job if job is not None and self.may_see(job) else None

    def visible(self, table: type[Owned], *, own: bool = False) -> ColumnElement[bool]:
        """Return the WHERE condition for the rows that the caller may see: their own, or all rows for an admin.

        With `own`, an admin sees their own rows only, too.
        """
        return true() if self.is_admin and not own else table.owner == self.owner


RecheckKey = Callable[[], Awaitable[Caller]]
"""Look the key up again. Raises ApiError, 401, if it was revoked or has expired."""


def _require_scope(scope: Scope) -> Callable[[Request], Awaitable[Caller]]:
    async def caller_with_scope(request: Request) -> Caller:
        caller: Caller = request.state.caller
        caller.require(scope)
        return caller

    return caller_with_scope


async def _get_recheck(request: Request) -> RecheckKey:
    recheck: RecheckKey = request.state.recheck
    return recheck


KeyStillValid = Annotated[RecheckKey, Depends(_get_recheck)]
"""For long-lived responses: `await recheck_key()` raises ApiError, 401, once the key was revoked or has expired."""
Reader = Annotated[Caller, Depends(_require_scope(Scope.READ))]
"""Endpoint parameter: a caller with the scope `read`, which `submit` and `admin` include."""
Submitter = Annotated[Caller, Depends(_require_scope(Scope.SUBMIT))]
"""Endpoint parameter: a caller with the scope `submit`, which `admin` includes."""
MetricsReader = Annotated[Caller, Depends(_require_scope(Scope.METRICS))]
"""Endpoint parameter: a caller with the scope `metrics`, which `admin` includes."""
Own = Annotated[bool, Query(description="Only rows of the key's owner, also with a key of the scope `admin`.")]
"""Parameter of a list: leave out the rows of other owners."""
Admin = Annotated[Caller, Depends(_require_scope(Scope.ADMIN))]
"""Endpoint parameter: a caller with the scope `admin`."""
