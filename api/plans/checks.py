"""Checks of a plan: all checks of `POST /jobs`, the number of steps, and the reasons why the job would wait."""

from collections.abc import Iterator

from sqlalchemy.orm import Session

from api.datasets.checks import DatasetCheckResult
from api.http.auth import Caller
from api.http.errors import ApiError
from api.jobs.references import ReferenceReview
from frs.dataset.report import describe_background, describe_crowded, describe_validation
from frs.detector_spec import DetectorByName, DetectorOfJob, DetectorRef
from frs.errors import BadDataset
from frs.preflight.step_runner import Check
from frs.schedule_spec import Schedule
from frs.schedule_summary import describe_options
from frs.spec import JobSpec
from frs.step_counts import StepCounts, count_steps, described_epochs
from store.db.tables import Dataset, Job
from store.jobs.submission import awaited_job_id
from store.scheduling import waiting, worker_registry
from store.states import WAITING_HINTS, JobStatus, WaitingReason

NOT_CHECKED = "Not checked, because an earlier check failed."
"""Message of a check that another failed check prevents."""


def reference_checks(spec: JobSpec, reference_review: ReferenceReview) -> Iterator[Check]:
    """Yield a check for each reference of the spec.

    The code of a passed check is the name of its field, that of a failed check is the error code.
    """
    for field, error in reference_review.errors.items():
        if error is not None:
            yield failed_check(error)
        elif field == "dataset" and reference_review.dataset:
            yield _dataset_check(spec, reference_review.dataset)
        else:
            yield Check(code=field, level="info", ok=True, message=_describe_reference(field, getattr(spec, field)))


def _describe_reference(field: str, reference: str | DetectorRef) -> str:
    """Return what the check of a valid reference has established; only a worker can read weights."""
    match reference:
        case str():
            return f"The training images of `{field}` can be used."
        case DetectorByName() | DetectorOfJob():
            return f"`{field}` exists. Its weights are not read here: measure on a worker."
        case _ if isinstance(reference.init, str):
            return f"`{field}` refers to no weights file. It is not built here: measure on a worker."
        case _:
            return f"The weights that `{field}` starts from exist. They are not read here: measure on a worker."


def schedule_check(spec: JobSpec, images: int | None) -> tuple[Check, StepCounts | None]:
    """Return the check of the schedule, and the step counts if they are known.

    `images` is the number of training images; None: unknown, because the check of the data set failed.
    """
    if not spec.trains:
        return Check(code="schedule", level="info", ok=True, message=f"Kind `{spec.kind}` does not train."), None
    if images is None:
        return Check(code="schedule", level="info", ok=False, message=NOT_CHECKED), None
    if images == 0:
        message = "The training split has no image with boxes."
        return Check(
            code=BadDataset.code, level="error", ok=False, message=message, hint="Choose another data set."
        ), None
    steps = count_steps(spec.schedule, described_epochs(spec.student), images)
    if steps is None:
        message = "The number of epochs is set in the base config of mmdet, which only a worker can read."
        hint = "Set `schedule.epochs` or `schedule.max_steps`, or measure on a worker."
        return Check(code="schedule", level="info", ok=False, message=message, hint=hint), None
    counts = f"{steps.steps} training steps, {steps.per_epoch} per epoch, limited by {_limit(spec.schedule, steps)}."
    message = " ".join([counts, *describe_options(spec.schedule)])
    return Check(code="schedule", level="info", ok=True, message=message), steps


def _limit(schedule: Schedule, counts: StepCounts) -> str:
    """Return what ends the training first."""
    if counts.steps == schedule.max_steps:
        return "`max_steps`"
    return "`epochs`" if schedule.epochs else f"the default of {counts.epochs} epochs"


def waiting_checks(session: Session, caller: Caller, spec: JobSpec, dataset: Dataset | None) -> Iterator[Check]:
    """Yield warnings for the reasons why the job would wait in the queue."""
    teacher = pending_teacher(session, caller, spec)
    if teacher is not None:
        message = f"Job {teacher.title}, whose student this job uses, is {teacher.status}."
        yield _waiting_check(WaitingReason.DETECTOR, message)
    workers = worker_registry.alive(session)
    reason, message = waiting.worker_reason(session, _to_job(caller, spec, dataset), workers)
    if workers and reason is WaitingReason.WORKER:
        yield Check(code="workers", level="info", ok=True, message="A worker that can run the job is available.")
    else:
        yield _waiting_check(reason, message)


def pending_teacher(session: Session, caller: Caller, spec: JobSpec) -> Job | None:
    """Return the job that trains the detector which the spec refers to; None if there is none or it has succeeded."""
    job_id = awaited_job_id(session, spec)
    job = caller.find_job(session, job_id) if job_id else None
    return job if job is not None and job.status != JobStatus.SUCCEEDED else None


def count_training_images(spec: JobSpec, reference_review: ReferenceReview) -> int | None:
    """Return the number of images that are trained on; None if the check of the data set failed."""
    if reference_review.dataset is None:
        return None
    train = DatasetCheckResult.model_validate(reference_review.dataset.check_result).train
    return None if train is None else train.trained_images(spec.schedule.keep_background_images)


def failed_check(error: ApiError) -> Check:
    """Return the failed check that corresponds to an error of `POST /jobs`."""
    return Check(code=error.code, level="error", ok=False, message=error.detail, hint=error.hint)


def _to_job(caller: Caller, spec: JobSpec, dataset: Dataset | None) -> Job:
    """Return the row of the job as `POST /jobs` would add it; it is not added to the session."""
    columns = {"dataset_id": dataset and dataset.id, "owner": caller.owner, "key_id": caller.key_id}
    return Job(spec=spec.model_dump(mode="json"), devices=spec.resources.devices, nodes=spec.resources.nodes, **columns)


def _dataset_check(spec: JobSpec, dataset: Dataset) -> Check:
    check_result = DatasetCheckResult.model_validate(dataset.check_result)
    train, val = check_result.train, check_result.val
    sentences = [f"{len(dataset.classes or [])} classes."]
    if train and spec.trains:
        kept = spec.schedule.keep_background_images
        sentences.append(f"{train.trained_images(kept)} images to train on.")
        sentences += describe_background(train.excluded_images.get("no_boxes", 0), kept)
    if val:
        sentences.append(describe_validation(val.counts.images - val.invalid_images))
    invalid = sum(split.invalid_images for split in (train, val) if split)
    warnings = [f"{invalid} images have issues and are excluded."] if invalid else []
    warnings += describe_crowded(val, spec.evaluation.max_detections) if val else []
    return Check(
        code="dataset",
        level="warning" if warnings else "info",
        ok=not warnings,
        message=" ".join(sentences + warnings),
        hint="The health report of the data set lists them." if invalid else "",
    )


def _waiting_check(reason: WaitingReason, message: str) -> Check:
    return Check(code=reason, level="warning", ok=False, message=message, hint=WAITING_HINTS[reason])
