"""Remove what the retention rules do not keep."""

from api.clean.schemas import CleanRequest, CleanResult
from api.context import Context
from api.http import files
from api.http.auth import Caller
from store.db import audit
from store.db.api_keys import Scope
from store.errors import ActionNotAllowed, JobInUse, JobNotFound
from store.jobs import retention
from store.jobs.retention import Removed, RetentionRules

MAX_GROUPS = 500
"""Run groups of one request; each is removed in a transaction of its own."""


def clean(context: Context, caller: Caller, request: CleanRequest) -> CleanResult:
    """Remove, or with `dry_run` measure, what the rules do not keep. Raises ApiError 403 without the scope `admin`."""
    if request.all_owners:
        caller.require(Scope.ADMIN, "`all_owners`")
    rules = RetentionRules(request.older_than_days * 86_400, request.keep_last, request.keep_tag)
    with context.database.read() as session:
        expired = retention.expired_groups(session, rules, None if request.all_owners else caller.owner)
    groups = [id for id in expired if id > (request.after or "")]
    page = groups[:MAX_GROUPS]
    removed = [part for job_id in page if (part := _clean_group(context, caller, job_id, request)) is not None]
    return CleanResult(
        dry_run=request.dry_run,
        groups=len(page),
        next_after=page[-1] if len(groups) > len(page) else None,
        skipped=len(page) - len(removed),
        job_ids=[id for part in removed for id in part.job_ids],
        checkpoints=sum(part.checkpoints for part in removed),
        metrics=sum(part.metrics for part in removed),
        bytes=sum(part.bytes for part in removed),
    )


def _clean_group(context: Context, caller: Caller, job_id: str, request: CleanRequest) -> Removed | None:
    """Remove contents of a run group; return None if another job needs it.

    A dry run does the same and rolls it back, so that its report is exact.
    """
    with context.database.write() as session:
        try:
            removed = retention.remove(session, job_id, request.contents, caller.actor)
        except (JobInUse, JobNotFound, ActionNotAllowed):
            return None
        if request.dry_run:
            session.rollback()
            return removed
        if removed.checkpoints or removed.metrics:
            audit.record(session, caller.actor, "job.clean", [job_id], contents=[*map(str, request.contents)])
        session.commit()
    files.delete_files(context.artifacts, *removed.keys)
    return removed
