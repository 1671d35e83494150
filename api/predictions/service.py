"""Find the exported files of a student and of what it is compared with, and run them on an image."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from api.context import Context
from api.http.auth import Caller
from api.http.errors import ApiError, NotFoundError
from api.jobs.service import get_row
from api.predictions.schemas import Compared, DetectedObject, Prediction, PredictionResult, Role
from api.stored_specs import read_spec
from frs.detector_spec import DetectorByName, DetectorOfJob
from frs.export.names import FILE_NAMES
from frs.spec import ExportFormat
from store.db import queries, tables
from store.states import JobStatus


class ExportedFile(NamedTuple):
    """A file to run, and whose it is."""

    role: Role
    artifact: tables.Artifact


class Exports(NamedTuple):
    """Exports among which the newest file of a format is used."""

    condition: ColumnElement[bool]
    file_format: ExportFormat
    label: str
    command: str
    """The next step if there is no file."""


def files_of_job(
    context: Context, caller: Caller, job_id: str, compare: Sequence[Compared], file_format: ExportFormat
) -> list[ExportedFile]:
    """Return the exported file of a job's student, or of an export, and those of the detectors that `compare` names.

    Raises JobNotFound, ApiError 409 if one of them has no exported file, and what `_compared` raises.
    """
    with context.database.read() as session:
        job = get_row(session, caller, job_id)
        files = [ExportedFile("student", _find(session, caller, _own(job, file_format)))]
        for role in compare:
            exports = _compared(session, caller, job, role, file_format)
            files.append(ExportedFile(role, _find(session, caller, exports)))
    return files


def file_of_detector(context: Context, caller: Caller, name: str, file_format: ExportFormat) -> list[ExportedFile]:
    """Return the exported file of a registered detector. Raises NotFoundError, and ApiError 409 if there is none."""
    with context.database.read() as session:
        detector = caller.find_detector(session, name)
        if detector is None:
            raise NotFoundError(
                "detector_not_found", "There is no detector of this name.", "The list of detectors has their names."
            )
        return [ExportedFile("detector", _find(session, caller, _of_detector(detector, file_format)))]


def predict(context: Context, owner: str, files: Sequence[ExportedFile], image: Path, threshold: float) -> Prediction:
    """Return what the files find on the image.

    Raises ApiError 501 without onnxruntime, and what `PredictorPool.predict` raises.
    """
    if find_spec("onnxruntime") is None:
        hint = "The operator can install the extra `frs-distill[predict]` beside the API."
        raise ApiError(501, "prediction_unavailable", "The API has no onnxruntime, which runs exported files.", hint)
    results, size = [], (0, 0)
    for role, artifact in files:
        answer, milliseconds = context.predictors.predict(artifact, image, owner)
        size = answer["width"], answer["height"]
        objects = [
            DetectedObject(box=tuple(box), score=score, label=answer["classes"][label])
            for box, score, label in zip(answer["boxes"], answer["scores"], answer["labels"], strict=True)
            if score >= threshold
        ]
        results.append(PredictionResult(role=role, job_id=artifact.job_id, milliseconds=milliseconds, objects=objects))
    return Prediction(width=size[0], height=size[1], results=results)


def _own(job: tables.Job, file_format: ExportFormat) -> Exports:
    """Return the exports of a job's student; of an export, that one. Its student's other files take another export."""
    if job.kind != queries.EXPORT:
        return _of_job(job.id, f"job {job.title}", file_format)
    student = job.teacher_job_id
    command = (
        f"frs export {student} --format {file_format}, and name {student}"
        if student
        else f"frs submit with the spec of this export and `export: {{formats: [{file_format}]}}`, and name the new job"
    )
    return Exports(tables.Job.id == job.id, file_format, f"export {job.title}", f"{command} instead of the export")


def _compared(session: Session, caller: Caller, job: tables.Job, role: Compared, file_format: ExportFormat) -> Exports:
    """Return the exports of a job's baseline or teacher.

    Raises ApiError 422 if the job has none, and what `read_spec` raises.
    """
    if role == "baseline":
        baseline = next((child for child in queries.children(session, job.id) if child.kind == "train"), None)
        if baseline is not None:
            return _of_job(baseline.id, f"baseline {baseline.title}", file_format)
    elif isinstance(teacher := read_spec(job).teacher, DetectorOfJob):
        return _of_job(teacher.job, f"teacher {teacher.job}", file_format)
    elif isinstance(teacher, DetectorByName):
        detector = caller.find_detector(session, teacher.detector)
        if detector is not None:
            return _of_detector(detector, file_format)
    raise ApiError(
        422,
        "not_comparable",
        f"The job has no {role} that can be exported.",
        "Compare jobs with `baseline`, and with a teacher that is another job or a registered detector.",
    )


def _of_job(job_id: str, label: str, file_format: ExportFormat) -> Exports:
    command = f"frs export {job_id} --format {file_format}"
    return Exports(tables.Job.teacher_job_id == job_id, file_format, label, command)


def _of_detector(detector: tables.Detector, file_format: ExportFormat) -> Exports:
    """Return the exports of a registered detector; older ones than it are of another detector of its name."""
    refers = queries.refers_to(tables.Job.spec["student"]["detector"].as_string(), detector)
    command = (
        f"frs submit with `kind: export`, `student: {{detector: {detector.name}}}` "
        f"and `export: {{formats: [{file_format}]}}`"
    )
    condition = refers & (tables.Job.created_at >= detector.created_at)
    return Exports(condition, file_format, f"detector {detector.name}", command)


def _find(session: Session, caller: Caller, exports: Exports) -> tables.Artifact:
    """Return the file of the newest succeeded export. Raise ApiError 409 if there is none."""
    job, artifact = tables.Job, tables.Artifact
    artifact_row = session.scalar(
        select(artifact)
        .join(job, artifact.job_id == job.id)
        .where(exports.condition, job.kind == queries.EXPORT, job.status == JobStatus.SUCCEEDED, caller.visible(job))
        .where(artifact.name == FILE_NAMES[exports.file_format])
        .order_by(job.created_at.desc())
        .limit(1)
    )
    if artifact_row is None:
        detail = f"There is no exported {exports.file_format} file of {exports.label} yet."
        raise ApiError(409, "not_exported", detail, f"Export it first: {exports.command}.")
    return artifact_row
