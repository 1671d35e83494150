"""What keeps a sweep from posting jobs: the owner's limits, an invalid key, objects that were deleted."""

from sqlalchemy.orm import Session

from frs.spec import JobSpec
from store.db import api_keys, queries, usage
from store.db.database import time_of
from store.db.sweep_tables import Sweep
from store.db.tables import ApiKey, Dataset, Job
from store.jobs.submission import source_job_ids
from store.settings import Settings
from store.states import SweepFailure


def find_obstacle(session: Session, sweep: Sweep, spec: JobSpec) -> tuple[SweepFailure, str] | None:
    """Return why the sweep, whose jobs have this spec, can post no job until a user acts, with a message.

    Returns None if it can.
    """
    key = _key_of(session, sweep)
    if key is not None and (key.revoked_at is not None or (key.expires_at or 1e300) <= time_of(session)):
        return SweepFailure.KEY_INVALID, "The API key that the sweep was posted with was revoked or has expired."
    if session.get(Dataset, sweep.dataset_id, populate_existing=True) is None:
        return SweepFailure.REFERENCE_DELETED, "The data set of the sweep was deleted."
    for job_id in source_job_ids(spec).values():
        if session.get(Job, job_id, populate_existing=True) is None:
            return SweepFailure.REFERENCE_DELETED, f"Job {job_id}, whose student the sweep uses, was deleted."
    return None


def free_places(session: Session, settings: Settings, sweep: Sweep) -> int:
    """Return how many more jobs the owner may have now; 0 while the owner's files exceed their limit.

    The count holds until the transaction ends.
    """
    key = _key_of(session, sweep)
    max_bytes = (key.max_disk_bytes if key else None) or settings.max_disk_bytes
    if usage.total_bytes(session, sweep.owner) > max_bytes:
        return 0
    api_keys.lock_owner(session, sweep.owner)
    max_jobs = (key.max_active_jobs if key else None) or settings.max_active_jobs
    return max(0, max_jobs - queries.count_active_jobs(session, sweep.owner))


def _key_of(session: Session, sweep: Sweep) -> ApiKey | None:
    return session.get(ApiKey, sweep.key_id, populate_existing=True) if sweep.key_id else None
