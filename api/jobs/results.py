"""What a job has left so far: events, logs, checkpoints, evaluations, report, artifacts."""

from collections.abc import Sequence
from typing import Literal

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from api.checkpoints.schemas import Checkpoint
from api.http.auth import Caller
from api.http.errors import NotFoundError
from api.http.pagination import number
from api.http.schemas import Page
from api.jobs.schemas import Artifact, Evaluation, Event, LogLine
from api.jobs.service import row
from frs.evaluation import report as reports
from frs.evaluation.report import Comparison, MissingRun, Report, Scores
from frs.events import Role
from store.db import queries, tables
from store.db.database import Database

CONFIG = "student-config.py"
_LOG = "log"


def events(database: Database, caller: Caller, job_id: str, limit: int, cursor: str | None) -> Page[Event]:
    with database.read() as session:
        query = _events(session, caller, job_id).where(tables.Event.type != _LOG)
        rows, next_cursor = _numbered(session, query, limit, cursor)
    return Page(data=[Event.model_validate(event) for event in rows], next_cursor=next_cursor)


def logs(
    database: Database, caller: Caller, job_id: str, limit: int, cursor: str | None, tail: int | None
) -> Page[LogLine]:
    with database.read() as session:
        query = _events(session, caller, job_id).where(tables.Event.type == _LOG)
        if tail is None:
            rows, next_cursor = _numbered(session, query, limit, cursor)
        else:
            newest = session.scalars(query.order_by(tables.Event.seq.desc()).limit(tail)).all()
            rows, next_cursor = newest[::-1], None
    return Page(data=[_line(event) for event in rows], next_cursor=next_cursor)


def checkpoints(database: Database, caller: Caller, job_id: str) -> Page[Checkpoint]:
    table = tables.Checkpoint
    with database.read() as session:
        row(session, caller, job_id)
        found = session.scalars(select(table).where(table.job_id == job_id).order_by(table.created_at, table.id)).all()
    return Page(data=[Checkpoint.model_validate(checkpoint) for checkpoint in found])


def evaluations(database: Database, caller: Caller, job_id: str) -> Page[Evaluation]:
    table = tables.Evaluation
    with database.read() as session:
        row(session, caller, job_id)
        by_step = select(table).where(table.job_id == job_id).order_by(table.step, table.role, table.last)
        found = session.scalars(by_step).all()
    return Page(data=[Evaluation.model_validate(evaluation) for evaluation in found])


def report(database: Database, caller: Caller, job_id: str) -> Report:
    with database.read() as session:
        job = row(session, caller, job_id)
        if job.kind == queries.COMPARE and job.parent_id:  # what it compares is its parent's report
            job_id = job.parent_id
            job = row(session, caller, job_id)
        runs: dict[str, list[tables.Job]] = {"distill": [], "train": [], "compare": []}
        for child in queries.children(session, job_id):
            runs[child.kind].append(child)
        students, baselines = [job, *runs["distill"]], runs["train"]
        compared = next((child.facts["comparison"] for child in runs["compare"] if "comparison" in child.facts), None)
        waiting = [_missing(run, "student") for run in students if not _student(session, run)]
        waiting += [_missing(run, "baseline") for run in baselines if not _student(session, run)]
        waiting += [] if compared else [_missing(run, "comparison") for run in runs["compare"]]
        return reports.build(
            [scores for run in students if (scores := _student(session, run))],
            _scores(session, job_id, "teacher"),
            [scores for run in baselines if (scores := _student(session, run))],
            pairs=len(baselines),
            wants_teacher=job.kind == "distill",
            facts=job.facts,
            comparison=Comparison.model_validate(compared) if compared else None,
            waiting_for=waiting,
        )


def artifacts(database: Database, caller: Caller, job_id: str) -> Page[Artifact]:
    """With those of its comparison."""
    table = tables.Artifact
    with database.read() as session:
        found = session.scalars(
            select(table).where(table.job_id.in_(_holders(session, caller, job_id))).order_by(table.name)
        )
        return Page(data=[Artifact.model_validate(artifact) for artifact in found])


def artifact(database: Database, caller: Caller, job_id: str, name: str) -> tables.Artifact:
    """Of the job or of its comparison. Raises JobNotFound, NotFoundError."""
    table = tables.Artifact
    with database.read() as session:
        found = session.scalar(
            select(table).where(table.job_id.in_(_holders(session, caller, job_id)), table.name == name)
        )
    if found is None:
        hint = f"A job has its artifacts when it has succeeded: GET /jobs/{job_id}/artifacts."
        raise NotFoundError("artifact_not_found", "This job has no such artifact, or not yet.", hint)
    return found


def _holders(session: Session, caller: Caller, job_id: str) -> list[str]:
    """Jobs whose artifacts are this job's: its own and its comparison's, which have other names."""
    row(session, caller, job_id)
    job = tables.Job
    comparison = session.scalars(select(job.id).where(job.parent_id == job_id, job.kind == queries.COMPARE))
    return [job_id, *comparison]


def _missing(job: tables.Job, what: Literal["student", "baseline", "comparison"]) -> MissingRun:
    said = f"{job.error['code']}: {job.error['message']}" if job.error else job.end_reason
    return MissingRun(job_id=job.id, what=what, status=job.status, reason=said)


def _student(session: Session, job: tables.Job) -> Scores | None:
    return _scores(session, job.id, "student")


def _events(session: Session, caller: Caller, job_id: str) -> Select[tables.Event]:
    row(session, caller, job_id)
    return select(tables.Event).where(tables.Event.job_id == job_id)


def _numbered(
    session: Session, query: Select[tables.Event], limit: int, cursor: str | None
) -> tuple[Sequence[tables.Event], str | None]:
    seq = tables.Event.seq
    rows = session.scalars(query.where(seq > number(cursor)).order_by(seq).limit(limit + 1)).all()
    return rows[:limit], str(rows[limit - 1].seq) if len(rows) > limit else None


def _line(event: tables.Event) -> LogLine:
    return LogLine(seq=event.seq, at=event.at, attempt=event.attempt, **event.data)


def _scores(session: Session, job_id: str, role: Role) -> Scores | None:
    """Of the last evaluation that counts."""
    table = tables.Evaluation
    those_that_count = select(table).where(table.job_id == job_id, table.role == role, table.last)
    found = session.scalar(those_that_count.order_by(table.attempt.desc(), table.step.desc()).limit(1))
    return Scores(metrics=found.metrics, per_class=found.per_class) if found else None
