"""Whether what a spec refers to is there and fits: found out before the job is taken on, not hours later."""

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
from frs.dataset.classes import difference
from frs.dataset.report import usable_without_boxes
from frs.errors import BadDataset, ClassMismatch, WeightsNotFound
from frs.events import ErrorInfo
from frs.spec import DetectorByName, DetectorOfJob, DetectorRef, Init, InitFromDetector, InitFromFile, JobSpec
from store.db.tables import Dataset
from store.states import DatasetStatus, DetectorStatus, JobStatus

_TOLD = 3
"""Issues that the message names; `errors` lists up to `_LISTED`."""
_LISTED = 20
_GIVE_NO_STUDENT = (JobStatus.FAILED, JobStatus.CANCELLED)


@dataclass(frozen=True)
class JobReferences:
    dataset_id: str
    teacher_job_id: str | None
    """The job whose student this one has to wait for."""


@dataclass(frozen=True)
class ReferenceReview:
    refused: dict[str, InvalidField | None]
    """By each field that refers to something, in the order of the spec; None where it holds."""
    dataset: Dataset | None


def check(session: Session, context: Context, caller: Caller, spec: JobSpec) -> JobReferences:
    """Raises InvalidField, naming the field and the next step."""
    reviewed = review(session, context, caller, spec)
    for refusal in filter(None, reviewed.refused.values()):
        raise refusal
    assert reviewed.dataset, "or it was refused"
    return JobReferences(reviewed.dataset.id, waits_for(spec))


def review(session: Session, context: Context, caller: Caller, spec: JobSpec) -> ReferenceReview:
    """All that `check` would raise one after the other. Where there is no data set, classes are of no account."""
    refused: dict[str, InvalidField | None] = {}
    dataset: Dataset | None = None
    try:
        dataset = _dataset(session, caller, spec.dataset, spec.max_invalid_fraction, "dataset")
        refused["dataset"] = None
    except InvalidField as refusal:
        refused["dataset"] = refusal
    if spec.unlabelled:
        refused["unlabelled"] = _refusal(_images, session, caller, spec.unlabelled, spec.max_invalid_fraction)
    for loc, detector in _sides(spec):
        leaves_out = loc == "student" and spec.kind != "evaluate"
        refused[loc] = _refusal(_check_detector, session, context, caller, dataset, detector, loc, leaves_out)
    return ReferenceReview(refused, dataset)


def waits_for(spec: JobSpec) -> str | None:
    """The job whose student it needs."""
    return next((detector.job for _, detector in _sides(spec) if isinstance(detector, DetectorOfJob)), None)


def _sides(spec: JobSpec) -> list[tuple[str, DetectorRef]]:
    return [("student", spec.student)] + ([("teacher", spec.teacher)] if spec.teacher else [])


def _refusal(look: Callable[..., None], *arguments: Any) -> InvalidField | None:
    try:
        look(*arguments)
    except InvalidField as refusal:
        return refusal
    return None


def _dataset(session: Session, caller: Caller, id_or_name: str, max_invalid_fraction: float, loc: str) -> Dataset:
    dataset = _found(session, caller, id_or_name, loc)
    if dataset.status == DatasetStatus.HAS_PROBLEMS:
        findings = DatasetCheckResult.model_validate(dataset.check_result)
        if not findings.accepted(max_invalid_fraction):
            raise _bad(dataset, findings, loc)
    return dataset


def _found(session: Session, caller: Caller, id_or_name: str, loc: str) -> Dataset:
    """A set that has been checked."""
    dataset = caller.dataset(session, id_or_name)
    if dataset is None:
        hint = "Register it with POST /datasets, or see GET /datasets."
        raise InvalidField(loc, "dataset_not_found", "No data set of this id or name.", hint)
    if dataset.status == DatasetStatus.CHECKING:
        hint = f"Poll GET /datasets/{dataset.id}."
        raise InvalidField(loc, "dataset_not_ready", f"Data set {dataset.id} is still being checked.", hint)
    return dataset


def _images(session: Session, caller: Caller, id_or_name: str, max_invalid_fraction: float) -> None:
    """Whether the images of a set can teach without their boxes."""
    dataset = _found(session, caller, id_or_name, "unlabelled")
    findings = DatasetCheckResult.model_validate(dataset.check_result)
    if findings.train is None or not usable_without_boxes(findings.train, max_invalid_fraction):
        raise _bad(dataset, findings, "unlabelled")


def _bad(dataset: Dataset, findings: DatasetCheckResult, loc: str) -> InvalidField:
    issues = findings.issues
    said = " ".join(f"{issue.split}: {issue.message}" for issue in issues[:_TOLD])
    more = findings.issue_count - _TOLD
    detail = f"Data set {dataset.name} has issues. {said}{f' And {more} more.' if more > 0 else ''}"
    hint = f"See GET /datasets/{dataset.id}/check. Correct the files and register them anew"
    share = max((half.invalid_fraction for half in (findings.train, findings.val) if half), default=1.0)
    if share < 1 and findings.accepted(share):
        hint += f", or leave the bad images out with `max_invalid_fraction` of {math.ceil(share * 1e4) / 1e4} or more"
    errors = [FieldError(loc=loc, code=issue.code, message=issue.message) for issue in issues[:_LISTED]]
    return InvalidField(loc, BadDataset.code, detail, f"{hint}.", errors=errors)


def _check_detector(
    session: Session,
    context: Context,
    caller: Caller,
    dataset: Dataset | None,
    detector: DetectorRef,
    loc: str,
    leaves_out: bool,
) -> None:
    """`leaves_out`: whether it is started from weights of any classes, without their class layers."""
    match detector:
        case DetectorByName():
            _check_registered(session, caller, dataset, detector.detector, f"{loc}.detector")
        case DetectorOfJob():
            _check_job(session, caller, dataset, detector.job, f"{loc}.job")
        case _:
            _check_init(session, context, caller, None if leaves_out else dataset, detector.init, f"{loc}.init")


def _check_init(
    session: Session, context: Context, caller: Caller, dataset: Dataset | None, init: Init, loc: str
) -> None:
    match init:
        case InitFromDetector():
            _check_registered(session, caller, dataset, init.detector, f"{loc}.detector")
        case InitFromFile():
            files.named_file(context.settings.models_root, init.weights, f"{loc}.weights", code=WeightsNotFound.code)


def _check_registered(session: Session, caller: Caller, dataset: Dataset | None, id_or_name: str, loc: str) -> None:
    """Without a data set the detector's classes are of no account."""
    detector = caller.detector(session, id_or_name)
    if detector is None:
        hint = "Register it with POST /detectors, or see GET /detectors."
        raise InvalidField(loc, "detector_not_found", "No detector of this id or name.", hint)
    if detector.status == DetectorStatus.IMPORTING:
        detail, hint = f"Detector {detector.name} is still being imported.", f"Poll GET /detectors/{detector.id}."
        raise InvalidField(loc, "detector_not_ready", detail, hint)
    if detector.status == DetectorStatus.REFUSED:
        why = ErrorInfo.model_validate(detector.error)
        raise InvalidField(loc, "detector_refused", f"Detector {detector.name} was refused. {why.message}", why.hint)
    if dataset is not None and detector.classes is not None:
        _check_classes(dataset, detector.classes, f"Detector {detector.name}", loc)


def _check_job(session: Session, caller: Caller, dataset: Dataset | None, job_id: str, loc: str) -> None:
    job = caller.job(session, job_id)
    if job is None:
        raise InvalidField(loc, "job_not_found", "No job of this id.", "See GET /jobs.")
    if job.kind in ("evaluate", "compare") or job.status in _GIVE_NO_STUDENT:
        detail = f"Job {job.id}, of kind {job.kind} and {job.status}, will not have a student."
        raise InvalidField(loc, "dependency_failed", detail, "Name a job that trains one, or post that one again.")
    if dataset is not None:
        trained_on = session.get_one(Dataset, job.dataset_id)
        _check_classes(dataset, trained_on.classes or [], f"The student of job {job.id}", loc)


def _check_classes(dataset: Dataset, classes: Sequence[str], whose: str, loc: str) -> None:
    text = difference(dataset.classes or [], classes, whose)
    if text:
        hint = "Choose a detector with the data set's classes, in the same order."
        raise InvalidField(loc, ClassMismatch.code, text, hint)
