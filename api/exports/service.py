"""Start and list the exports of a job's student."""

from sqlalchemy import or_, select

from api.context import Context
from api.exports.schemas import Export
from api.http.auth import Caller
from api.http.pagination import newest_first
from api.http.schemas import Page
from api.jobs import service as jobs
from api.jobs.schemas import Job
from api.stored_specs import read_spec
from frs.evaluation.export_report import ExportReport
from frs.names import add_suffix
from frs.spec import ExportSettings, JobSpec, Resources
from store.db import queries, tables
from store.db.database import Database
from store.stored_documents import read_document


def start(context: Context, caller: Caller, job_id: str, settings: ExportSettings, idempotency_key: str | None) -> Job:
    """Add a job that exports the student of a job, and return it.

    Raises JobNotFound, and what `export_of` and `jobs.submit` raise.
    """
    with context.database.read() as session:
        spec = export_of(jobs.get_row(session, caller, job_id), settings)
    return jobs.submit(context, caller, spec, idempotency_key)


def export_of(job: tables.Job, settings: ExportSettings) -> JobSpec:
    """Return the spec of the export of a job's student: on the job's data set, on the CPU, where the files are run.

    Raises ApiError 409 if this version cannot read the job's spec.
    """
    spec = read_spec(job)
    return JobSpec.model_validate(
        {
            "kind": queries.EXPORT,
            "name": spec.name and add_suffix(spec.name, "-export"),
            "dataset": job.dataset_id,
            "student": {"job": job.id},
            "evaluation": spec.evaluation,
            "export": settings,
            "resources": Resources(devices=0),
            "max_invalid_fraction": spec.max_invalid_fraction,
        }
    )


def list_exports(database: Database, caller: Caller, job_id: str, limit: int, cursor: str | None) -> Page[Export]:
    """Return a page of the exports of a job's student, newest first; of an export, that one. Raises JobNotFound."""
    job = tables.Job
    with database.read() as session:
        jobs.get_row(session, caller, job_id)
        selected = or_(job.id == job_id, job.teacher_job_id == job_id)
        query = select(job).where(job.kind == queries.EXPORT, selected, caller.visible(job))
        rows, next_cursor = newest_first(session, query, job, limit, cursor)
        return Page(data=[_to_response(row) for row in rows], next_cursor=next_cursor)


def _to_response(row: tables.Job) -> Export:
    stored = row.facts.get("export")
    report = read_document(ExportReport, stored)
    return Export(
        job_id=row.id,
        status=row.status,
        settings=row.spec["export"],
        passed=report and report.passed,
        report=report or stored,
        error=row.error,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )
