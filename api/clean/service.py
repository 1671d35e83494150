"""Remove what the retention rules do not keep."""

from api.clean.schemas import CleanRequest, CleanResult
from api.context import Context
from api.http.auth import Caller
from store.jobs import retention
from store.jobs.retention import RetentionRules
from store.states import Scope

MAX_GROUPS = 500
"""Run groups of one request; each is removed in a transaction of its own."""


def clean(context: Context, caller: Caller, request: CleanRequest) -> CleanResult:
    """Remove, or with `dry_run` measure, what the rules do not keep. Raises ApiError 403 without the scope `admin`."""
    if request.all_owners:
        caller.require(Scope.ADMIN, "`all_owners`")
    rules = RetentionRules(request.older_than_days * 86_400, request.keep_last, request.keep_tag)
    owner = None if request.all_owners else caller.owner
    with context.database.read() as session:
        expired = retention.expired_groups(session, rules, request.contents, owner)
    groups = [id for id in expired if id > (request.after or "")]
    page = groups[:MAX_GROUPS]
    results = [
        retention.clean_group(
            context.database, context.artifacts, job_id, request.contents, rules, caller.actor, request.dry_run
        )
        for job_id in page
    ]
    removed = [result for result in results if result is not None]
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
