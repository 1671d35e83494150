"""Register, list, read and delete detectors."""

from collections.abc import Sequence

from sqlalchemy import delete as delete_from
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from api.context import Context
from api.detectors.schemas import Detector, DetectorCreate
from api.http import files
from api.http.auth import Caller
from api.http.errors import ApiError, InvalidField, NotFoundError
from api.http.pagination import newest_first
from api.http.schemas import Page
from api.stored_specs import check_readable_student
from frs.files import digest
from store.db import audit, ids, queries, tables
from store.db.database import Database, insert
from store.db.tables import Document, Job
from store.states import TERMINAL, JobStatus

_REFERENCES = (
    ("teacher", "detector"),
    ("teacher", "init", "detector"),
    ("student", "detector"),
    ("student", "init", "detector"),
)
"""Paths in a spec that can refer to a detector."""


def register(context: Context, caller: Caller, request: DetectorCreate) -> Detector:
    """Register a detector and return it.

    Raises InvalidField if the weights are missing, ApiError 409 if the name is in use.
    """
    source = _columns_from_job(context, caller, request.job) if request.job else _columns_from_file(context, request)
    values = {"id": ids.new_id("det"), "name": request.name, "owner": caller.owner, **source}
    with context.database.write() as session:
        statement = insert(session, tables.Detector).values(values)
        detector = session.scalar(
            statement.on_conflict_do_nothing(index_elements=["owner", "name"]).returning(tables.Detector)
        )
        if detector is not None:
            audit.record(session, caller.actor, "detector.register", [detector.id], name=request.name, job=request.job)
        session.commit()
        if detector is not None:
            return _to_responses(session, [detector])[0]
    hint = "Choose another name, or delete that detector first."
    raise ApiError(409, "name_taken", "A detector of this name exists already.", hint)


def list_detectors(database: Database, caller: Caller, limit: int, cursor: str | None) -> Page[Detector]:
    """Return a page of detectors, newest first. Raises InvalidField for an invalid cursor."""
    with database.read() as session:
        query = select(tables.Detector).where(caller.visible(tables.Detector))
        rows, next_cursor = newest_first(session, query, tables.Detector, limit, cursor)
        return Page(data=_to_responses(session, rows), next_cursor=next_cursor)


def get_detector(database: Database, caller: Caller, id_or_name: str) -> Detector:
    """Return a detector. Raises NotFoundError."""
    with database.read() as session:
        return _to_responses(session, [_get_row(session, caller, id_or_name)])[0]


def _to_responses(session: Session, rows: Sequence[tables.Detector]) -> list[Detector]:
    """Return the responses of detectors, with the mAP of the jobs that trained them."""
    mAPs = queries.mAPs_of_students(session, [row.job_id for row in rows if row.job_id])
    return [
        Detector.model_validate(row).model_copy(update={"mAP": mAPs.get(row.job_id) if row.job_id else None})
        for row in rows
    ]


def delete(database: Database, caller: Caller, id_or_name: str) -> str | None:
    """Delete a detector and return the key of its stored weights, to be released; None: it has none.

    Raises NotFoundError, and ApiError 409 while a job that refers to it has not ended.
    """
    with database.write() as session:
        detector = _get_row(session, caller, id_or_name)
        weights_key = detector.weights_key
        if _is_in_use(session, detector):
            hint = "Cancel these jobs, or wait until they have ended."
            raise ApiError(409, "detector_in_use", "Jobs that have not ended refer to this detector.", hint)
        session.execute(delete_from(tables.Detector).where(tables.Detector.id == detector.id))
        audit.record(session, caller.actor, "detector.delete", [detector.id], name=detector.name)
        session.commit()
    return weights_key


def _columns_from_file(context: Context, request: DetectorCreate) -> Document:
    assert request.description and request.weights, "the schema requires both"
    path = files.resolve_file(context.settings.models_root, request.weights, "weights", code="weights_not_found")
    return {
        "description": request.description.model_dump(mode="json"),
        "weights_file": request.weights,
        "sha256": digest(path),
        "classes": request.classes and list(request.classes),
    }


def _columns_from_job(context: Context, caller: Caller, job_id: str) -> Document:
    with context.database.read() as session:
        job, student = caller.find_job(session, job_id), queries.last_student(session, job_id)
        if job is None:
            raise InvalidField("job", "job_not_found", "There is no job of this id.", "Choose one of the list of jobs.")
        if job.status != JobStatus.SUCCEEDED or student is None:
            detail = f"Job {job.title} (kind {job.kind}, status {job.status}) has no finished student."
            raise InvalidField("job", "student_not_ready", detail, "Choose a succeeded job that trained a student.")
        check_readable_student(job, "job")
        dataset = session.get_one(tables.Dataset, job.dataset_id)
    return {
        "description": job.spec["student"],
        "weights_key": student.key,
        "sha256": student.sha256,
        "bytes": student.bytes,
        "classes": dataset.classes,
        "job_id": job.id,
    }


def _is_in_use(session: Session, detector: tables.Detector) -> bool:
    references = [queries.refers_to(Job.spec[path].as_string(), detector) for path in _REFERENCES]
    query = select(Job.id).where(Job.status.not_in(TERMINAL), or_(*references)).limit(1)
    return session.scalar(query) is not None


def _get_row(session: Session, caller: Caller, id_or_name: str) -> tables.Detector:
    detector = caller.find_detector(session, id_or_name)
    if detector is None:
        raise NotFoundError(
            "detector_not_found", "There is no detector of this id or name.", "The list of detectors has their names."
        )
    return detector
