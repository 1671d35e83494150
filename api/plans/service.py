from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.context import Context
from api.http.auth import Caller
from api.http.errors import ApiError, NotFoundError
from api.jobs import references
from api.jobs.service import check_not_comparison, derived_specs
from api.plans import checks as plan_checks
from api.plans.schemas import Plan, Probe
from frs.spec import JobSpec
from store.db.database import Database
from store.db.tables import WorkerRequest
from store.requests import worker_requests
from store.scheduling import queue, waiting
from store.states import RequestKind, RequestStatus, WaitingReason

MAX_PROBES = 20
"""Of one owner that have not ended: each takes a worker's time."""


def plan(context: Context, caller: Caller, spec: JobSpec) -> Plan:
    """Raises InvalidField for a comparison, which nobody can post."""
    check_not_comparison(spec)
    with context.database.read() as session:
        reviewed = references.review(session, context, caller, spec)
        images = plan_checks.training_images(reviewed)
        schedule, steps = plan_checks.schedule_check(spec, images)
        wait = plan_checks.waiting_checks(session, caller, spec, reviewed.dataset)
        checks = [*plan_checks.reference_checks(reviewed), schedule, *wait]
        place = queue.position_of_new_job(session, spec.priority)
    return Plan(
        ok=not any(check.level == "error" for check in checks),
        spec=spec,
        checks=checks,
        training_images=None if spec.kind == "evaluate" else images,
        epochs=steps and steps.epochs,
        steps=steps and steps.steps,
        queue_position=place,
        jobs=1 + sum(1 for _ in derived_specs(spec)),
    )


def probe(context: Context, caller: Caller, spec: JobSpec) -> Probe:
    """Raises InvalidField for references that do not hold, ApiError 409 or 429 where a worker could not or should not."""
    check_not_comparison(spec)
    with context.database.read() as session:
        found = references.check(session, context, caller, spec)
        _refuse_to_wait(session, caller, spec)
    request = {"spec": spec.model_dump(mode="json"), "key_id": caller.key_id, "dataset_id": found.dataset_id}
    with context.database.write() as session:
        _refuse_too_many(session, caller)
        devices = spec.resources.devices
        worker_request = worker_requests.add(session, RequestKind.PROBE, request, owner=caller.owner, devices=devices)
        session.commit()
    return find(context.database, caller, worker_request.id)


def find(database: Database, caller: Caller, plan_id: str) -> Probe:
    with database.read() as session:
        worker_request = session.get(WorkerRequest, plan_id)
        if worker_request is None or worker_request.kind != RequestKind.PROBE or not caller.may_see(worker_request):
            raise NotFoundError("plan_not_found", "No such plan.", "Make one with POST /jobs/plan?probe=true.")
        found = {
            "spec": worker_request.request["spec"],
            "status_reason": waiting.probe_waiting_reason(session, worker_request),
        }
    columns = {name: getattr(worker_request, name) for name in Probe.model_fields if name not in found}
    return Probe.model_validate(columns | found)


def _refuse_to_wait(session: Session, caller: Caller, spec: JobSpec) -> None:
    teacher = plan_checks.pending_teacher(session, caller, spec)
    if teacher is not None:
        detail = f"Job {teacher.id} is {teacher.status}: there is no detector yet to build."
        hint = f"Follow GET /jobs/{teacher.id} until it has succeeded, or plan without `probe`."
        raise ApiError(409, WaitingReason.TEACHER, detail, hint)


def _refuse_too_many(session: Session, caller: Caller) -> None:
    waiting = (
        WorkerRequest.status.in_([RequestStatus.QUEUED, RequestStatus.RUNNING]),
        WorkerRequest.kind == RequestKind.PROBE,
    )
    count = session.scalars(select(func.count()).where(WorkerRequest.owner == caller.owner, *waiting)).one()
    if count >= MAX_PROBES:
        detail = f"{count} plans of yours have not been probed yet."
        hint = "Wait for these, or plan without `probe`; see GET /workers."
        raise ApiError(429, "too_many_probes", detail, hint, headers={"Retry-After": "10"})
