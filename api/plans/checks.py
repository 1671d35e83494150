"""The checks of `POST /jobs`, all of them instead of the first that fails, and what a worker would make of the job."""

from collections.abc import Iterator

from sqlalchemy.orm import Session

from api.datasets.checks import DatasetCheckResult
from api.http.auth import Caller
from api.http.errors import ApiError
from api.jobs import references
from api.jobs.references import ReferenceReview
from frs.dataset.report import Report
from frs.errors import BadDataset
from frs.preflight.checks import Check
from frs.spec import JobSpec
from frs.step_counts import StepCounts, count_steps, known_epochs
from store.db.tables import Dataset, Job
from store.scheduling import waiting, worker_registry
from store.states import WAITING_HINTS, JobStatus, WaitingReason

NOT_CHECKED = "Not looked at, because of what failed before."


def reference_checks(reviewed: ReferenceReview) -> Iterator[Check]:
    """Each under the name of its field where it holds, under the code of the refusal otherwise."""
    for field, refusal in reviewed.refused.items():
        if refusal is not None:
            yield failed_check(refusal)
        elif field == "dataset" and reviewed.dataset:
            yield _of_a_dataset(reviewed.dataset)
        else:
            yield Check(code=field, level="info", ok=True, message=f"What `{field}` names is there, and fits.")


def schedule_check(spec: JobSpec, images: int | None) -> tuple[Check, StepCounts | None]:
    """`images`: how many there are to train on; None where that is not known."""
    epochs = known_epochs(spec.schedule, spec.student)
    if spec.kind == "evaluate":
        return Check(code="schedule", level="info", ok=True, message="It does not train."), None
    if images is None:
        return Check(code="schedule", level="info", ok=False, message=NOT_CHECKED), None
    if images == 0:
        message = "The training split has no image with boxes."
        return Check(code=BadDataset.code, level="error", ok=False, message=message, hint="Choose another one."), None
    if epochs is None:
        message, hint = (
            "The epochs are the stock config's, which only a worker knows.",
            "Set `schedule.epochs`, or probe.",
        )
        return Check(code="schedule", level="info", ok=False, message=message, hint=hint), None
    steps = count_steps(spec.schedule, epochs, images)
    said = f"{steps.steps} steps, {steps.per_epoch} an epoch."
    return Check(code="schedule", level="info", ok=True, message=said), steps


def waiting_checks(session: Session, caller: Caller, spec: JobSpec, dataset: Dataset | None) -> Iterator[Check]:
    """What would keep it in the queue: warnings."""
    teacher = pending_teacher(session, caller, spec)
    if teacher is not None:
        message = f"Job {teacher.id}, which trains the detector it needs, is {teacher.status}."
        yield _would_wait(WaitingReason.TEACHER, message)
    workers = worker_registry.alive(session)
    reason, message = waiting.worker_reason(session, _job_of(caller, spec, dataset), workers)
    if workers and reason is WaitingReason.WORKER:
        yield Check(code="workers", level="info", ok=True, message="There is a worker that can run it.")
    else:
        yield _would_wait(reason, message)


def pending_teacher(session: Session, caller: Caller, spec: JobSpec) -> Job | None:
    """The job whose student it needs, while there is none yet."""
    job_id = references.waits_for(spec)
    job = caller.job(session, job_id) if job_id else None
    return job if job is not None and job.status != JobStatus.SUCCEEDED else None


def training_images(reviewed: ReferenceReview) -> int | None:
    """None where the data set cannot be trained on as the spec would have it."""
    if reviewed.dataset is None:
        return None
    half = DatasetCheckResult.model_validate(reviewed.dataset.check_result).train
    return None if half is None else _trainable(half)


def failed_check(refusal: ApiError) -> Check:
    return Check(code=refusal.code, level="error", ok=False, message=refusal.detail, hint=refusal.hint)


def _job_of(caller: Caller, spec: JobSpec, dataset: Dataset | None) -> Job:
    """As it would be posted; in no table."""
    references = {"dataset_id": dataset and dataset.id, "owner": caller.owner, "key_id": caller.key_id}
    return Job(spec=spec.model_dump(mode="json"), devices=spec.resources.devices, **references)


def _of_a_dataset(dataset: Dataset) -> Check:
    found = DatasetCheckResult.model_validate(dataset.check_result)
    halves = [half for half in (found.train, found.val) if half]
    images = " and ".join(str(half.counts.images - half.invalid_images) for half in halves)
    said = f"{images} images to train and to validate on, {len(dataset.classes or [])} classes."
    bad = sum(half.invalid_images for half in halves)
    left_out = f" {bad} images have issues and are left out." if bad else ""
    level, hint = ("warning", f"See GET /datasets/{dataset.id}/check.") if bad else ("info", "")
    return Check.model_validate(
        {"code": "dataset", "level": level, "ok": not bad, "message": said + left_out, "hint": hint}
    )


def _trainable(half: Report) -> int:
    """Of a report that an earlier version made, as near as it can be told."""
    if half.labelled_images is not None:
        return half.labelled_images
    return max(0, half.counts.images - half.counts.images_without_boxes - half.invalid_images)


def _would_wait(reason: WaitingReason, message: str) -> Check:
    return Check(code=reason, level="warning", ok=False, message=message, hint=WAITING_HINTS[reason])
