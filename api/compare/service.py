"""Compare the specs, curves and evaluations of several jobs."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.compare import curves
from api.compare.schemas import ComparedJob, Comparison, JobScores, SpecDifference
from api.context import Context
from api.http.auth import Caller
from api.jobs.service import get_row
from store.db.tables import Evaluation, Job
from store.stored_documents import read_facts

_NOT_COMPARED = ("name", "tags", "metadata", "priority")
"""Fields of a spec that do not affect the training."""


def compare_jobs(
    context: Context, caller: Caller, job_ids: Sequence[str], keys: Sequence[str] | None, max_points: int
) -> Comparison:
    """Return the comparison of the given jobs, in their order. Raises JobNotFound."""
    with context.database.read() as session:
        jobs = [get_row(session, caller, job_id) for job_id in job_ids]
        evaluations = {job.id: evaluation for job in jobs if (evaluation := _last_student_evaluation(session, job.id))}
        comparable = len({job.dataset_id for job in jobs if job.id in evaluations}) < 2
    return Comparison(
        jobs=[_to_compared_job(job, evaluations.get(job.id)) for job in jobs],
        differences=find_differences([job.spec for job in jobs]),
        curves=curves.align_curves(context, caller, job_ids, keys, max_points),
        evaluations=_score(list(evaluations.values()), comparable),
        comparable=comparable,
    )


def find_differences(specs: Sequence[Mapping[str, Any]]) -> list[SpecDifference]:
    """Return the fields whose values are not the same in all specs, in the order of the fields."""
    leaves = [dict(_leaves(spec, "")) for spec in specs]
    paths = dict.fromkeys(path for spec in leaves for path in spec)
    rows = {path: [spec.get(path) for spec in leaves] for path in paths}
    return [
        SpecDifference(path=path, values=values) for path, values in rows.items() if any(v != values[0] for v in values)
    ]


def _leaves(part: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    """Return the dotted path and the value of each field that is not a group of fields."""
    leaves: list[tuple[str, Any]] = []
    for name, value in part.items():
        if not prefix and name in _NOT_COMPARED:
            continue
        path = f"{prefix}{name}"
        leaves += _leaves(value, f"{path}.") if isinstance(value, dict) else [(path, value)]
    return leaves


def _to_compared_job(job: Job, evaluation: Evaluation | None) -> ComparedJob:
    columns = {name: getattr(job, name) for name in ComparedJob.model_fields.keys() & Job.__table__.columns.keys()}
    facts = read_facts(job.facts)
    mAP = evaluation.metrics.get("bbox_mAP") if evaluation else None
    method = job.spec["method"] if job.kind == "distill" else None
    return ComparedJob.model_validate(
        columns
        | {
            "parameters": facts.student_parameters,
            "flops": facts.student_flops,
            "latency_ms": facts.student_latency_ms,
            "mAP": mAP,
            "method": method,
        }
    )


def _last_student_evaluation(session: Session, job_id: str) -> Evaluation | None:
    """Return the evaluation that counts in the report; the newest evaluation if there is none yet."""
    student_evaluations = select(Evaluation).where(Evaluation.job_id == job_id, Evaluation.role == "student")
    newest_first = (Evaluation.last.desc(), Evaluation.attempt.desc(), Evaluation.step.desc())
    return session.scalar(student_evaluations.order_by(*newest_first).limit(1))


def _score(evaluations: Sequence[Evaluation], comparable: bool) -> list[JobScores]:
    best, best_classes = (
        _best_names([getattr(row, part) for row in evaluations]) if comparable else [list[str]()] * len(evaluations)
        for part in ("metrics", "per_class")
    )
    columns = ("job_id", "step", "last", "metrics", "per_class")
    return [
        JobScores.model_validate(
            {name: getattr(row, name) for name in columns}
            | {"best": best[number], "best_classes": best_classes[number]}
        )
        for number, row in enumerate(evaluations)
    ]


def _best_names(rows: Sequence[Mapping[str, float | None]]) -> list[list[str]]:
    """Return, for each row, the names of its values that no other row exceeds.

    Names with fewer than two values are ignored.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    values = {name: [value for row in rows if (value := row.get(name)) is not None] for name in names}
    highest = {name: max(present) for name, present in values.items() if len(present) > 1}
    return [[name for name, value in row.items() if name in highest and value == highest[name]] for row in rows]
