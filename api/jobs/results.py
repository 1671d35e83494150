"""Read the results of a job: events, logs, checkpoints, evaluations, report and artifacts."""

from collections.abc import Sequence
from typing import Literal

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from api.checkpoints.schemas import Checkpoint
from api.http.auth import Caller
from api.http.errors import NotFoundError
from api.http.pagination import parse_sequence_cursor
from api.http.schemas import Page
from api.jobs.schemas import Artifact, Evaluation, Event, LogLine
from api.jobs.service import get_row
from frs.evaluation import report as reports
from frs.evaluation.advice import Training
from frs.evaluation.export_report import FileReport
from frs.evaluation.report import MissingRun, Report, Scores
from frs.evaluation.verdict import Comparison
from frs.events import Role
from store.db import queries, tables
from store.db.database import Database
from store.states import JobStatus
from store.stored_documents import read_document, read_facts

CONFIG = "student-config.py"
"""Name of the artifact that holds the mmdet config of the student."""
_LOG = "log"
StudentLabel = Literal["best", "last"]


def list_events(database: Database, caller: Caller, job_id: str, limit: int, cursor: str | None) -> Page[Event]:
    """Return a page of events without log lines, oldest first. Raises JobNotFound."""
    with database.read() as session:
        query = _event_query(session, caller, job_id).where(tables.Event.type != _LOG)
        rows, next_cursor = _page_by_sequence(session, query, limit, cursor)
    return Page(data=[Event.model_validate(event) for event in rows], next_cursor=next_cursor)


def list_logs(
    database: Database, caller: Caller, job_id: str, limit: int, cursor: str | None, tail: int | None
) -> Page[LogLine]:
    """Return a page of log lines, or the newest `tail` lines, oldest first. Raises JobNotFound."""
    with database.read() as session:
        query = _event_query(session, caller, job_id).where(tables.Event.type == _LOG)
        if tail is None:
            rows, next_cursor = _page_by_sequence(session, query, limit, cursor)
        else:
            newest = session.scalars(query.order_by(tables.Event.seq.desc()).limit(tail)).all()
            rows, next_cursor = newest[::-1], None
    return Page(data=[_to_log_line(event) for event in rows], next_cursor=next_cursor)


def list_checkpoints(database: Database, caller: Caller, job_id: str) -> Page[Checkpoint]:
    """Return the checkpoints of a job, oldest first. Raises JobNotFound."""
    table = tables.Checkpoint
    with database.read() as session:
        get_row(session, caller, job_id)
        rows = session.scalars(select(table).where(table.job_id == job_id).order_by(table.created_at, table.id)).all()
    return Page(data=[Checkpoint.model_validate(checkpoint) for checkpoint in rows])


def list_evaluations(database: Database, caller: Caller, job_id: str) -> Page[Evaluation]:
    """Return the evaluations of a job, ordered by step. Raises JobNotFound."""
    table = tables.Evaluation
    with database.read() as session:
        get_row(session, caller, job_id)
        by_step = select(table).where(table.job_id == job_id).order_by(table.step, table.role, table.last)
        rows = session.scalars(by_step).all()
    return Page(data=[Evaluation.model_validate(evaluation) for evaluation in rows])


def build_report(database: Database, caller: Caller, job_id: str, student: StudentLabel) -> Report:
    """Return the report of a job; for a comparison job, the report of its parent. Raises JobNotFound."""
    with database.read() as session:
        job = get_row(session, caller, job_id)
        if job.kind == queries.COMPARE and job.parent_id:
            job_id = job.parent_id
            job = get_row(session, caller, job_id)
        if student == "best":
            return _build_report_of_best(session, job)
        runs: dict[str, list[tables.Job]] = {"distill": [], "train": [], "compare": []}
        for child in queries.children(session, job_id):
            runs[child.kind].append(child)
        students, baselines = [job, *runs["distill"]], runs["train"]
        facts = read_facts(job.facts)
        comparisons = [read_document(Comparison, child.facts.get("comparison")) for child in runs["compare"]]
        comparison = next(filter(None, comparisons), None)
        waiting = [_missing_run(run, "student") for run in students if not _student_scores(session, run)]
        waiting += [_missing_run(run, "baseline") for run in baselines if not _student_scores(session, run)]
        waiting += [] if comparison else [_missing_run(run, "comparison") for run in runs["compare"]]
        return reports.build(
            [scores for run in students if (scores := _student_scores(session, run))],
            _read_scores(session, job_id, "teacher"),
            [scores for run in baselines if (scores := _student_scores(session, run))],
            pairs=len(baselines),
            expects_teacher=bool(job.spec["teacher"]) and facts.teacher_evaluated,
            facts=facts,
            comparison=comparison,
            waiting_for=waiting,
            files=_exported_files(session, caller, job_id),
            training=_training(session, job),
        )


def _training(session: Session, job: tables.Job) -> Training:
    """Return the course of the student's training, by its evaluations."""
    table = tables.Evaluation
    query = select(table.step, table.metrics).where(table.job_id == job.id, table.role == "student")
    curve = {step: metrics.get("bbox_mAP") for step, metrics in session.execute(query.order_by(table.step, table.last))}
    return Training(list(curve.items()), job.end_reason)


def _exported_files(session: Session, caller: Caller, job_id: str) -> list[FileReport]:
    """Return the files of the newest export of a job's student that this version can read; none without an export."""
    job = tables.Job
    exports = select(job.facts).where(job.kind == queries.EXPORT, job.teacher_job_id == job_id, caller.visible(job))
    newest = exports.where(job.status == JobStatus.SUCCEEDED).order_by(job.created_at.desc()).limit(1)
    files = (session.scalar(newest) or {}).get("export", {}).get("files", [])
    return [file for document in files if (file := read_document(FileReport, document))]


def _build_report_of_best(session: Session, job: tables.Job) -> Report:
    """Return the metrics of the best student of one run, without baseline and gain, which compare last students."""
    best, facts = _read_best_scores(session, job.id), read_facts(job.facts)
    return reports.build(
        [best] if best else [],
        _read_scores(session, job.id, "teacher"),
        [],
        pairs=0,
        expects_teacher=bool(job.spec["teacher"]) and facts.teacher_evaluated,
        facts=facts,
        waiting_for=[] if best else [_missing_run(job, "student")],
    )


def list_artifacts(database: Database, caller: Caller, job_id: str) -> Page[Artifact]:
    """Return the artifacts of a job and of its comparison, ordered by name. Raises JobNotFound."""
    table = tables.Artifact
    with database.read() as session:
        rows = session.scalars(
            select(table).where(table.job_id.in_(_artifact_job_ids(session, caller, job_id))).order_by(table.name)
        )
        return Page(data=[Artifact.model_validate(artifact) for artifact in rows])


def get_artifact(database: Database, caller: Caller, job_id: str, name: str) -> tables.Artifact:
    """Return an artifact of the job or of its comparison. Raises JobNotFound, NotFoundError."""
    table = tables.Artifact
    with database.read() as session:
        artifact = session.scalar(
            select(table).where(table.job_id.in_(_artifact_job_ids(session, caller, job_id)), table.name == name)
        )
    if artifact is None:
        hint = "A job has all its files when it has succeeded; the list of its artifacts has their names."
        raise NotFoundError("artifact_not_found", "This job has no artifact of this name yet.", hint)
    return artifact


def _artifact_job_ids(session: Session, caller: Caller, job_id: str) -> list[str]:
    """Return the ids of the job and of its comparison; the names of their artifacts are distinct."""
    get_row(session, caller, job_id)
    job = tables.Job
    comparison = session.scalars(select(job.id).where(job.parent_id == job_id, job.kind == queries.COMPARE))
    return [job_id, *comparison]


def _missing_run(job: tables.Job, what: Literal["student", "baseline", "comparison"]) -> MissingRun:
    reason = f"{job.error['code']}: {job.error['message']}" if job.error else job.end_reason
    if what == "comparison" and "comparison" in job.facts:
        reason = "It was stored by another version of FRS, and this one cannot read it: update FRS."
    return MissingRun(job_id=job.id, what=what, status=job.status, reason=reason)


def _student_scores(session: Session, job: tables.Job) -> Scores | None:
    return _read_scores(session, job.id, "student")


def _event_query(session: Session, caller: Caller, job_id: str) -> Select[tables.Event]:
    get_row(session, caller, job_id)
    return select(tables.Event).where(tables.Event.job_id == job_id)


def _page_by_sequence(
    session: Session, query: Select[tables.Event], limit: int, cursor: str | None
) -> tuple[Sequence[tables.Event], str | None]:
    seq = tables.Event.seq
    rows = session.scalars(query.where(seq > parse_sequence_cursor(cursor)).order_by(seq).limit(limit + 1)).all()
    return rows[:limit], str(rows[limit - 1].seq) if len(rows) > limit else None


def _to_log_line(event: tables.Event) -> LogLine:
    return LogLine(seq=event.seq, at=event.at, attempt=event.attempt, **event.data)


def _read_scores(session: Session, job_id: str, role: Role) -> Scores | None:
    """Return the scores of the newest evaluation that counts; None if there is none."""
    table = tables.Evaluation
    final = select(table).where(table.job_id == job_id, table.role == role, table.last)
    evaluation = session.scalar(final.order_by(table.attempt.desc(), table.step.desc()).limit(1))
    return Scores(metrics=evaluation.metrics, per_class=evaluation.per_class) if evaluation else None


def _read_best_scores(session: Session, job_id: str) -> Scores | None:
    """Return the scores of the checkpoint labelled `best`; None if there is none."""
    students = select(tables.Checkpoint).where(tables.Checkpoint.job_id == job_id, tables.Checkpoint.kind == "student")
    checkpoint = next((row for row in session.scalars(students) if "best" in row.labels), None)
    if checkpoint is None:
        return None
    table = tables.Evaluation
    at_step = select(table).where(table.job_id == job_id, table.role == "student", table.step == checkpoint.step)
    evaluation = session.scalar(at_step.order_by(table.last.desc(), table.attempt.desc()).limit(1))
    return Scores(metrics=checkpoint.metrics, per_class=evaluation.per_class if evaluation else {})
