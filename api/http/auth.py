"""Who asks: the API key a request came with, and what it opens. Every route outside `gate.OPEN` names one of these."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import ColumnElement, true
from sqlalchemy.orm import Session

from api.http.errors import ApiError
from store.db import queries
from store.db.api_keys import Scope
from store.db.tables import Dataset, Detector, Job, WorkerRequest

Owned = Job | Dataset | Detector | WorkerRequest


@dataclass(frozen=True)
class Caller:
    key_id: str
    owner: str
    scope: Scope
    """The widest that the key has."""
    max_active_jobs: int | None = None
    requests_per_minute: int | None = None

    @property
    def is_admin(self) -> bool:
        return self.scope is Scope.ADMIN

    def may_see(self, row: Owned) -> bool:
        return self.is_admin or row.owner == self.owner

    def dataset(self, session: Session, id_or_name: str) -> Dataset | None:
        return queries.find_dataset(session, id_or_name, self.owner, everybodys=self.is_admin)

    def detector(self, session: Session, id_or_name: str) -> Detector | None:
        return queries.find_detector(session, id_or_name, self.owner, everybodys=self.is_admin)

    def job(self, session: Session, job_id: str) -> Job | None:
        job = session.get(Job, job_id)
        return job if job is not None and self.may_see(job) else None

    def visible(self, table: type[Owned]) -> ColumnElement[bool]:
        """For the WHERE of every query: the caller's own, or everybody's for an admin."""
        return true() if self.is_admin else table.owner == self.owner


RecheckKey = Callable[[], Awaitable[Caller]]


def _needs(scope: Scope) -> Callable[[Request], Awaitable[Caller]]:
    async def caller_with_scope(request: Request) -> Caller:
        caller: Caller = request.state.caller
        if not caller.scope.includes(scope):
            hint = "Use a key that has it; an admin makes one with POST /api-keys."
            raise ApiError(403, "scope_missing", f"This needs a key with the scope `{scope}`.", hint)
        return caller

    return caller_with_scope


async def _recheck(request: Request) -> RecheckKey:
    recheck: RecheckKey = request.state.recheck
    return recheck


KeyStillValid = Annotated[RecheckKey, Depends(_recheck)]
"""For answers that last: `await still_known()` raises ApiError, 401, once the key was revoked or has expired."""
Reader = Annotated[Caller, Depends(_needs(Scope.READ))]
Submitter = Annotated[Caller, Depends(_needs(Scope.SUBMIT))]
Admin = Annotated[Caller, Depends(_needs(Scope.ADMIN))]
