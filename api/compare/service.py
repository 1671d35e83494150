from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.compare import curves
from api.compare.schemas import ComparedJob, Comparison, JobScores, SpecDifference
from api.context import Context
from api.http.auth import Caller
from api.jobs.service import row
from store.db.tables import Evaluation, Job

_NOT_COMPARED = ("name", "tags", "metadata", "priority")
"""Fields of a spec that change nothing about the training."""


def compare_jobs(
    context: Context, caller: Caller, job_ids: Sequence[str], keys: Sequence[str] | None, max_points: int
) -> Comparison:
    """Raises JobNotFound."""
    with context.database.read() as session:
        jobs = [row(session, caller, job_id) for job_id in job_ids]
        found = {job.id: evaluation for job in jobs if (evaluation := _last_of_the_student(session, job.id))}
    return Comparison(
        jobs=[_compared(job, found.get(job.id)) for job in jobs],
        differences=differences([job.spec for job in jobs]),
        curves=curves.aligned(context, caller, job_ids, keys, max_points),
        evaluations=_scored(list(found.values())),
    )


def differences(specs: Sequence[Mapping[str, Any]]) -> list[SpecDifference]:
    """In the order of the fields."""
    leaves = [dict(_leaves(spec, "")) for spec in specs]
    paths = dict.fromkeys(path for spec in leaves for path in spec)
    rows = {path: [spec.get(path) for spec in leaves] for path in paths}
    return [
        SpecDifference(path=path, values=values) for path, values in rows.items() if any(v != values[0] for v in values)
    ]


def _leaves(part: Mapping[str, Any], above: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in part.items():
        if not above and name in _NOT_COMPARED:
            continue
        path = f"{above}{name}"
        found += _leaves(value, f"{path}.") if isinstance(value, dict) else [(path, value)]
    return found


def _compared(job: Job, evaluation: Evaluation | None) -> ComparedJob:
    columns = {name: getattr(job, name) for name in ComparedJob.model_fields.keys() & Job.__table__.columns.keys()}
    facts = {name: job.facts.get(f"student_{name}") for name in ("parameters", "flops", "latency_ms")}
    mAP = evaluation.metrics.get("bbox_mAP") if evaluation else None
    method = job.spec["method"] if job.kind == "distill" else None
    return ComparedJob.model_validate(columns | facts | {"mAP": mAP, "method": method})


def _last_of_the_student(session: Session, job_id: str) -> Evaluation | None:
    """The one that counts, or while there is none the newest."""
    of_the_student = select(Evaluation).where(Evaluation.job_id == job_id, Evaluation.role == "student")
    newest_first = (Evaluation.last.desc(), Evaluation.attempt.desc(), Evaluation.step.desc())
    return session.scalar(of_the_student.order_by(*newest_first).limit(1))


def _scored(found: Sequence[Evaluation]) -> list[JobScores]:
    best, best_classes = (_best([getattr(row, part) for row in found]) for part in ("metrics", "per_class"))
    columns = ("job_id", "step", "last", "metrics", "per_class")
    return [
        JobScores.model_validate(
            {name: getattr(row, name) for name in columns}
            | {"best": best[number], "best_classes": best_classes[number]}
        )
        for number, row in enumerate(found)
    ]


def _best(rows: Sequence[Mapping[str, float | None]]) -> list[list[str]]:
    """For each row, the names under which none has more; only what at least two rows have a value for."""
    names = dict.fromkeys(name for row in rows for name in row)
    values = {name: [value for row in rows if (value := row.get(name)) is not None] for name in names}
    most = {name: max(found) for name, found in values.items() if len(found) > 1}
    return [[name for name, value in row.items() if name in most and value == most[name]] for row in rows]
