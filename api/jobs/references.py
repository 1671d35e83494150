"""Check everything that a job spec refers to when it is submitted, instead of hours later in the worker."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from api.context import Context
from api.datasets.checks import DatasetCheckResult
from api.http import files
from api.http.auth import Caller
from api.http.errors import InvalidField
from api.http.validation import FieldError
from api.stored_specs import check_readable_student, has_readable_student
from frs.dataset.classes import TEACHER_CLASSES_HINT, describe_class_difference
from frs.dataset.report import usable_without_boxes
from frs.detector_spec import (
    DescribedDetector,
    DetectorByName,
    DetectorOfJob,
    DetectorRef,
    Init,
    InitFromBackbone,
    InitFromDetector,
    InitFromFile,
    InitFromJob,
)
from frs.errors import BadDataset, ClassMismatch, WeightsNotFound
from frs.events import ErrorInfo
from frs.published_weights import imagenet_source
from frs.spec import JobSpec
from store.db.tables import Dataset
from store.jobs.submission import source_job_ids, unfinished_sources
from store.states import DatasetStatus, DetectorStatus, JobStatus

_MAX_ISSUES_IN_DETAIL = 3
_MAX_ERRORS = 20
_WITHOUT_STUDENT = (JobStatus.FAILED, JobStatus.CANCELLED)
_KINDS_WITHOUT_STUDENT = ("evaluate", "export", "compare")


@dataclass(frozen=True)
class ReferenceReview:
    """Results of all checks of a spec's references."""

    errors: dict[str, InvalidField | None]
    """Error of each field that refers to something, in the order of the checks; None: the reference is valid."""
    dataset: Dataset | None
    """The data set of the spec; None if its check failed."""


@dataclass(frozen=True)
class _ClassRule:
    """The classes that a detector must have."""

    names: Sequence[str]
    """Classes of the data set."""
    mapped: bool
    """Whether the detector's classes are mapped by name, so that it may have others, in any order."""


def check(session: Session, context: Context, caller: Caller, spec: JobSpec) -> str:
    """Check everything that a spec refers to, and return the id of its data set.

    Raises InvalidField for the first invalid reference, with its field and a hint.
    """
    reviewed = review(session, context, caller, spec)
    for error in filter(None, reviewed.errors.values()):
        raise error
    assert reviewed.dataset, "an invalid data set has an error"
    return reviewed.dataset.id


def review(session: Session, context: Context, caller: Caller, spec: JobSpec) -> ReferenceReview:
    """Return the errors of all references. Without a valid data set, classes are not compared.

    Detectors of any classes are valid as initial weights of a student that is trained, because their class layers are
    not loaded, and as teacher whose logits are not distilled.
    """
    errors: dict[str, InvalidField | None] = {}
    dataset: Dataset | None = None
    try:
        dataset = _check_dataset(session, caller, spec.dataset, spec.max_invalid_fraction, "dataset")
        errors["dataset"] = None
    except InvalidField as error:
        errors["dataset"] = error
    if spec.unlabelled:
        errors["unlabelled"] = _catch(_check_unlabelled, session, caller, spec.unlabelled, spec.max_invalid_fraction)
    for loc, detector in _detectors(spec):
        any_classes = not spec.distils_logits if loc == "teacher" else spec.kind in ("distill", "train")
        rule = _ClassRule(dataset.classes or [], mapped=loc == "teacher") if dataset and not any_classes else None
        errors[loc] = _catch(_check_detector, session, context, caller, rule, detector, loc)
    if not any(errors.values()):
        errors |= _catch_second_wait(session, spec)
    return ReferenceReview(errors, dataset)


def describe_student(session: Session, caller: Caller, spec: JobSpec) -> JobSpec:
    """Return a spec of kind `quantize` with the description of the student that it names by its job.

    The student of the new job can then be exported, registered and so on, also after the other job was deleted. Other
    specs, and one whose job `review` refuses, are returned as they are.
    """
    if spec.kind != "quantize" or not isinstance(spec.student, DetectorOfJob):
        return spec
    job = caller.find_job(session, spec.student.job)
    if job is None or job.kind in _KINDS_WITHOUT_STUDENT or not has_readable_student(job):
        return spec
    student = job.spec["student"] | {"init": {"job": job.id}}
    return JobSpec.model_validate(spec.model_dump(mode="json") | {"student": student})


def _detectors(spec: JobSpec) -> list[tuple[str, DetectorRef]]:
    return [("student", spec.student)] + ([("teacher", spec.teacher)] if spec.teacher else [])


def _catch_second_wait(session: Session, spec: JobSpec) -> dict[str, InvalidField]:
    """Return an error if the job would have to wait for two other jobs."""
    unfinished = {job.id: f"{job.title} ({job.status})" for job in unfinished_sources(session, spec)}
    if len(unfinished) < 2:
        return {}
    student, teacher = (unfinished[job_id] for job_id in source_job_ids(spec).values())
    detail = (
        f"Neither job {student}, which the student starts from, nor job {teacher}, the teacher, has succeeded; "
        "a job can wait for one of them only."
    )
    hint = "Submit it once one of them has succeeded."
    return {"teacher": InvalidField("teacher.job", "detector_not_ready", detail, hint)}


def _catch(check: Callable[..., None], *arguments: Any) -> InvalidField | None:
    """Return the error that a check raises; None if it passes."""
    try:
        check(*arguments)
    except InvalidField as error:
        return error
    return None


def _check_dataset(session: Session, caller: Caller, id_or_name: str, max_invalid_fraction: float, loc: str) -> Dataset:
    dataset = _get_checked(session, caller, id_or_name, loc)
    if dataset.status == DatasetStatus.HAS_PROBLEMS:
        check_result = DatasetCheckResult.model_validate(dataset.check_result)
        if not check_result.accepted(max_invalid_fraction):
            raise _bad_dataset(dataset, check_result, loc)
    return dataset


def _get_checked(session: Session, caller: Caller, id_or_name: str, loc: str) -> Dataset:
    """Return a data set whose check has finished. Raises InvalidField."""
    dataset = caller.find_dataset(session, id_or_name)
    if dataset is None:
        hint = "Upload or register it first, or choose one of the list of data sets."
        raise InvalidField(loc, "dataset_not_found", "There is no data set of this id or name.", hint)
    if dataset.status == DatasetStatus.CHECKING:
        hint = "Try again when its check has ended."
        raise InvalidField(loc, "dataset_not_ready", f"Data set {dataset.name} is still being checked.", hint)
    return dataset


def _check_unlabelled(session: Session, caller: Caller, id_or_name: str, max_invalid_fraction: float) -> None:
    """Raise InvalidField if the images of a data set cannot be used for distillation without labels."""
    dataset = _get_checked(session, caller, id_or_name, "unlabelled")
    check_result = DatasetCheckResult.model_validate(dataset.check_result)
    if check_result.train is None or not usable_without_boxes(check_result.train, max_invalid_fraction):
        raise _bad_dataset(dataset, check_result, "unlabelled")


def _bad_dataset(dataset: Dataset, check_result: DatasetCheckResult, loc: str) -> InvalidField:
    issues = check_result.issues
    messages = " ".join(f"{issue.split}: {issue.message}" for issue in issues[:_MAX_ISSUES_IN_DETAIL])
    others = check_result.issue_count - _MAX_ISSUES_IN_DETAIL
    detail = f"Data set {dataset.name} has issues. {messages}{f' Further issues: {others}.' if others > 0 else ''}"
    hint = "Its health report lists all issues. Correct the files and register them again"
    fraction = max((split.invalid_fraction for split in (check_result.train, check_result.val) if split), default=1.0)
    if fraction < 1 and check_result.accepted(fraction):
        least = math.ceil(fraction * 1e4) / 1e4
        hint += f", or exclude the invalid images with `max_invalid_fraction` of {least} or more"
    errors = [FieldError(loc=loc, code=issue.code, message=issue.message) for issue in issues[:_MAX_ERRORS]]
    return InvalidField(loc, BadDataset.code, detail, f"{hint}.", errors=errors)


def _check_detector(
    session: Session,
    context: Context,
    caller: Caller,
    rule: _ClassRule | None,
    detector: DetectorRef,
    loc: str,
) -> None:
    """Raise InvalidField if a detector is missing or does not fit. Without a rule, its classes are not compared."""
    match detector:
        case DetectorByName():
            _check_registered(session, caller, rule, detector.detector, f"{loc}.detector")
        case DetectorOfJob():
            _check_job(session, caller, rule, detector.job, f"{loc}.job")
        case DescribedDetector(init="imagenet") if not imagenet_source(detector):
            detail = "No ImageNet weights are published for this backbone."
            hint = "Set `init: random`, or choose a backbone with published weights: `frs models list`."
            raise InvalidField(f"{loc}.init", WeightsNotFound.code, detail, hint)
        case _:
            _check_init(session, context, caller, rule, detector.init, f"{loc}.init")


def _check_init(
    session: Session, context: Context, caller: Caller, rule: _ClassRule | None, init: Init, loc: str
) -> None:
    match init:
        case InitFromDetector():
            _check_registered(session, caller, rule, init.detector, f"{loc}.detector")
        case InitFromJob():
            _check_job(session, caller, rule, init.job, f"{loc}.job")
        case InitFromFile():
            files.resolve_file(context.settings.models_root, init.weights, f"{loc}.weights", code=WeightsNotFound.code)
        case InitFromBackbone():
            files.resolve_file(
                context.settings.models_root, init.backbone, f"{loc}.backbone", code=WeightsNotFound.code
            )


def _check_registered(session: Session, caller: Caller, rule: _ClassRule | None, id_or_name: str, loc: str) -> None:
    """Raise InvalidField if there is no usable detector."""
    detector = caller.find_detector(session, id_or_name)
    if detector is None:
        hint = "Upload or register it first, or choose one of the list of detectors."
        raise InvalidField(loc, "detector_not_found", "There is no detector of this id or name.", hint)
    if detector.status == DetectorStatus.IMPORTING:
        detail, hint = f"Detector {detector.name} is still being imported.", "Try again when its import has ended."
        raise InvalidField(loc, "detector_not_ready", detail, hint)
    if detector.status == DetectorStatus.REFUSED:
        error = ErrorInfo.model_validate(detector.error)
        detail = f"The weights of detector {detector.name} were refused. {error.message}"
        raise InvalidField(loc, "detector_refused", detail, error.hint)
    if rule is not None and detector.classes is not None:
        _check_classes(rule, detector.classes, f"Detector {detector.name}", loc)


def _check_job(session: Session, caller: Caller, rule: _ClassRule | None, job_id: str, loc: str) -> None:
    job = caller.find_job(session, job_id)
    if job is None:
        raise InvalidField(loc, "job_not_found", "There is no job of this id.", "Choose one of the list of jobs.")
    if job.kind in _KINDS_WITHOUT_STUDENT or job.status in _WITHOUT_STUDENT:
        detail = f"Job {job.title} (kind {job.kind}, status {job.status}) will not produce a student."
        hint = "Use a job that trains a student, or submit this job again."
        raise InvalidField(loc, "dependency_failed", detail, hint)
    check_readable_student(job, loc)
    if rule is not None:
        trained_on = session.get_one(Dataset, job.dataset_id)
        _check_classes(rule, trained_on.classes or [], f"The student of job {job.title}", loc)


def _check_classes(rule: _ClassRule, classes: Sequence[str], subject: str, loc: str) -> None:
    difference = describe_class_difference(rule.names, classes, subject)
    if difference is None or (rule.mapped and set(classes).issuperset(rule.names)):
        return
    hint = TEACHER_CLASSES_HINT if rule.mapped else "Choose a detector with the data set's classes, in the same order."
    raise InvalidField(loc, ClassMismatch.code, difference, hint)
