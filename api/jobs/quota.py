"""Limits of an owner that submits jobs."""

from dataclasses import replace

from sqlalchemy.orm import Session

from api.http.auth import Caller
from api.http.errors import ApiError
from store.db import api_keys
from store.db.queries import count_active_jobs
from store.db.tables import ApiKey, Job
from store.settings import Settings

_MAX_CONCURRENT_SUBMISSIONS = 100
"""Upper bound of the jobs being submitted at the same time. An owner with more free places than this needs no lock."""


def limited_owner(session: Session, caller: Caller, job: Job) -> Caller:
    """Return a caller with the owner and the limits that a job counts against.

    They are the caller's own, or for an admin those of the other owner's key that the job was submitted with.
    """
    if job.owner == caller.owner:
        return caller
    key = session.get(ApiKey, job.key_id) if job.key_id else None
    return replace(
        caller,
        owner=job.owner,
        max_active_jobs=key.max_active_jobs if key else None,
        max_disk_bytes=key.max_disk_bytes if key else None,
    )


def check(session: Session, settings: Settings, caller: Caller, additional: int) -> None:
    """Raise ApiError 429 if `additional` more active jobs exceed the owner's limit.

    Call it in the transaction that activates the jobs.
    """
    limit = caller.max_active_jobs or settings.max_active_jobs
    if count_active_jobs(session, caller.owner) + additional + _MAX_CONCURRENT_SUBMISSIONS <= limit:
        return
    api_keys.lock_owner(session, caller.owner)
    active = count_active_jobs(session, caller.owner)
    if active + additional > limit:
        detail = f"{caller.owner} has {active} active jobs; {additional} more exceed the limit of {limit}."
        hint = "Wait until some jobs have ended, cancel some, or request a key with a larger `max_active_jobs`."
        raise ApiError(429, "quota_exceeded", detail, hint)
