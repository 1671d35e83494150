"""Plan jobs and request probes from workers."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.context import Context
from api.http.auth import Caller
from api.http.errors import ApiError, NotFoundError
from api.jobs import references
from api.jobs.service import check_submittable
from api.plans import checks as plan_checks
from api.plans.schemas import Plan, Probe
from frs.spec import JobSpec
from store.db.database import Database
from store.db.tables import WorkerRequest
from store.jobs.submission import derived_specs, pin_references
from store.requests import worker_requests
from store.scheduling import queue, waiting
from store.states import RequestKind, RequestStatus, WaitingReason

MAX_PROBES = 20
"""Maximum number of unfinished probes per owner, because each occupies a worker."""


def plan(context: Context, caller: Caller, spec: JobSpec) -> Plan:
    """Return the plan of a job spec. Raises InvalidField and ApiError as `check_submittable`."""
    check_submittable(caller, spec)
    with context.database.read() as session:
        spec = references.describe_student(session, caller, spec)
        reference_review = references.review(session, context, caller, spec)
        images = plan_checks.count_training_images(spec, reference_review)
        schedule, steps = plan_checks.schedule_check(spec, images)
        waiting_checks = plan_checks.waiting_checks(session, caller, spec, reference_review.dataset)
        checks = [*plan_checks.reference_checks(spec, reference_review), schedule, *waiting_checks]
        position = queue.position_of_new_job(session, spec.priority, caller.owner)
    return Plan(
        ok=not any(check.level == "error" for check in checks),
        spec=spec,
        checks=checks,
        training_images=images if spec.trains else None,
        epochs=steps and steps.epochs,
        steps=steps and steps.steps,
        queue_position=position,
        jobs=1 + sum(1 for _ in derived_specs(spec)),
    )


def probe(context: Context, caller: Caller, spec: JobSpec) -> Probe:
    """Queue a probe and return it.

    Raises InvalidField if something that the spec refers to is missing or does not fit, ApiError 409 while its teacher
    is being trained, and ApiError 429 if the owner has too many unfinished probes.
    """
    check_submittable(caller, spec)
    with context.database.read() as session:
        spec = references.describe_student(session, caller, spec)
        dataset_id = references.check(session, context, caller, spec)
        _check_teacher_ready(session, caller, spec)
        spec = pin_references(session, spec, caller.actor)
    request = {"spec": spec.model_dump(mode="json"), "key_id": caller.key_id, "dataset_id": dataset_id}
    with context.database.write() as session:
        _check_probe_limit(session, caller)
        devices = spec.resources.devices
        worker_request = worker_requests.add(session, RequestKind.PROBE, request, owner=caller.owner, devices=devices)
        session.commit()
    return get_probe(context.database, caller, worker_request.id)


def get_probe(database: Database, caller: Caller, plan_id: str) -> Probe:
    """Return a probe. Raises NotFoundError."""
    with database.read() as session:
        worker_request = session.get(WorkerRequest, plan_id)
        if worker_request is None or worker_request.kind != RequestKind.PROBE or not caller.may_see(worker_request):
            raise NotFoundError(
                "plan_not_found", "There is no plan of this id.", "Plan the job again, measured on a worker."
            )
        fields = {
            "spec": worker_request.request["spec"],
            "status_reason": waiting.probe_waiting_reason(session, worker_request),
        }
    columns = {name: getattr(worker_request, name) for name in Probe.model_fields if name not in fields}
    return Probe.model_validate(columns | fields)


def _check_teacher_ready(session: Session, caller: Caller, spec: JobSpec) -> None:
    teacher = plan_checks.pending_teacher(session, caller, spec)
    if teacher is not None:
        detail = f"Job {teacher.title} is {teacher.status}; the probe needs its student."
        hint = "Measure once that job has succeeded, or plan without a measurement."
        raise ApiError(409, WaitingReason.DETECTOR, detail, hint)


def _check_probe_limit(session: Session, caller: Caller) -> None:
    unfinished = (
        WorkerRequest.status.in_([RequestStatus.QUEUED, RequestStatus.RUNNING]),
        WorkerRequest.kind == RequestKind.PROBE,
    )
    count = session.scalars(select(func.count()).where(WorkerRequest.owner == caller.owner, *unfinished)).one()
    if count >= MAX_PROBES:
        detail = f"{count} of your probes have not finished; the limit is {MAX_PROBES}."
        hint = (
            "Wait until some have finished, or plan without a measurement. The list of workers shows whether one runs."
        )
        raise ApiError(429, "too_many_probes", detail, hint, headers={"Retry-After": "10"})
