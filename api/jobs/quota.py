"""How many jobs an owner may have that have not ended."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.http.auth import Caller
from api.http.errors import ApiError
from store.db import api_keys
from store.db.tables import Job
from store.settings import Settings
from store.states import TERMINAL, JobStatus

_ACTIVE = [status for status in JobStatus if status not in TERMINAL]
_AT_ONCE = 100
"""More than can be on their way in at a time: so far from the limit nobody need wait for anybody's count."""


def check(session: Session, settings: Settings, caller: Caller, more: int) -> None:
    """Before `more` jobs become active, in the session that makes them so. Raises ApiError, 429."""
    most = caller.max_active_jobs or settings.max_active_jobs
    if _active(session, caller.owner) + more + _AT_ONCE <= most:
        return
    api_keys.lock_owner(session, caller.owner)
    active = _active(session, caller.owner)
    if active + more > most:
        detail = f"{active} jobs of {caller.owner} have not ended, and {more} more would be over its {most}."
        hint = "Wait until some have ended, cancel some, or ask an admin for a key with a larger `max_active_jobs`."
        raise ApiError(429, "quota_exceeded", detail, hint)


def _active(session: Session, owner: str) -> int:
    return session.scalars(select(func.count()).where(Job.owner == owner, Job.status.in_(_ACTIVE))).one()
