"""Common queries: data sets and detectors by id or name, students and their mAP, jobs by tag or run group."""

from collections.abc import Collection
from typing import TypeVar

from sqlalchemy import BigInteger, ColumnElement, and_, cast, exists, func, or_, select
from sqlalchemy.orm import Session
from sqlalchemy.orm.util import AliasedClass

from frs.errors import DatasetNotFound
from store.db.audit import Actor
from store.db.tables import ApiKey, Checkpoint, Dataset, Detector, Evaluation, Job
from store.states import JobStatus, Scope

COMPARE = "compare"
"""`Job.kind` of a comparison."""
EXPORT = "export"
"""`Job.kind` of an export."""
SEED = cast(Job.spec["schedule"]["seed"].as_string(), BigInteger)
"""Seed of a job, to order by. `as_integer` casts to INTEGER, which on PostgreSQL ends at 2^31 - 1."""
_STUDENT_PATHS = (("teacher", "job"), ("teacher", "init", "job"), ("student", "job"), ("student", "init", "job"))
"""Paths in a spec that can refer to the student of a job."""
Named = TypeVar("Named", Dataset, Detector)


def find_dataset(session: Session, id_or_name: str, owner: str, *, all_owners: bool = False) -> Dataset | None:
    """Return the owner's data set with that id or name, or None.

    With `all_owners`, also those of other owners; a name of the owner's own wins.
    """
    return _find(session, Dataset, id_or_name, owner, all_owners)


def find_detector(session: Session, id_or_name: str, owner: str, *, all_owners: bool = False) -> Detector | None:
    """Return the owner's detector with that id or name, or None; `all_owners` as in `find_dataset`."""
    return _find(session, Detector, id_or_name, owner, all_owners)


def sees_all_owners(session: Session, request: Job | Actor) -> bool:
    """Return whether the job, or the actor, has the key of an admin; a spec may then refer to rows of other owners."""
    key = session.get(ApiKey, request.key_id) if request.key_id else None
    return key is not None and Scope.ADMIN in key.scopes


def last_student(session: Session, job_id: str) -> Checkpoint | None:
    """Return the job's student checkpoint with the label `last`, or None."""
    students = select(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.kind == "student")
    return next((student for student in session.scalars(students) if "last" in student.labels), None)


def mAPs_of_students(session: Session, job_ids: Collection[str]) -> dict[str, float | None]:
    """Return the mAP of the students in the evaluation that counts, by job; jobs without it are absent."""
    counting = (Evaluation.job_id.in_(job_ids), Evaluation.role == "student", Evaluation.last)
    query = select(Evaluation.job_id, Evaluation.metrics["bbox_mAP"].as_float()).where(*counting)
    return dict(row._tuple() for row in session.execute(query.order_by(Evaluation.attempt, Evaluation.step)))


def has_tag(session: Session, tag: str) -> ColumnElement[bool]:
    """Return the condition that a job has exactly that tag."""
    if session.get_bind().dialect.name == "sqlite":
        tags = func.json_each(Job.tags).table_valued("value")
        return exists().where(tags.c.value == tag)
    tags = func.json_array_elements_text(Job.tags).table_valued("value")
    return exists().where(tags.c.value == tag)


def datasets_of(session: Session, job: Job) -> list[Dataset]:
    """Return the job's data set, followed by its unlabelled data set if the spec names one.

    Raises DatasetNotFound if one of them is no longer registered.
    """
    unlabelled = job.spec.get("unlabelled")
    datasets = [session.get(Dataset, job.dataset_id) if job.dataset_id else None]
    if unlabelled:
        datasets.append(find_dataset(session, unlabelled, job.owner, all_owners=sees_all_owners(session, job)))
    if None in datasets:
        raise DatasetNotFound(
            "A data set of the job is no longer registered.",
            "Register it again, or submit the job with another data set.",
        )
    return [dataset for dataset in datasets if dataset]


def upload_keys(session: Session, job: Job) -> list[str]:
    """Return the artifact keys of the job's uploaded data sets. Raises DatasetNotFound."""
    return [dataset.upload_key for dataset in datasets_of(session, job) if dataset.upload_key]


def count_active_jobs(session: Session, owner: str) -> int:
    """Return the number of the owner's jobs that have not ended."""
    active = [status for status in JobStatus if not status.is_terminal]
    return session.scalars(select(func.count()).where(Job.owner == owner, Job.status.in_(active))).one()


def is_used_unlabelled(session: Session, dataset: Dataset) -> bool:
    """Return whether a job that has not ended uses the data set as `unlabelled`."""
    is_unlabelled = refers_to(Job.spec["unlabelled"].as_string(), dataset)
    active = Job.status.not_in([status for status in JobStatus if status.is_terminal])
    return session.scalar(select(exists().where(is_unlabelled, active))) or False


def refers_to(reference: ColumnElement[str], row: Dataset | Detector) -> ColumnElement[bool]:
    """Return the condition that a field of a job's spec refers to `row`: by id, or by name if the owner is the same."""
    return or_(reference == row.id, and_(reference == row.name, Job.owner == row.owner))


def uses_student_of(job_ids: Collection[str]) -> ColumnElement[bool]:
    """Return the condition that a job uses the student of one of these jobs: it waits for it, or its spec names it."""
    names = or_(*(Job.spec[path].as_string().in_(job_ids) for path in _STUDENT_PATHS))
    has_source = Job.teacher_job_id.is_not(None)  # one of two sources; spares the specs of other jobs
    return or_(Job.teacher_job_id.in_(job_ids), and_(has_source, names))


def children(session: Session, job_id: str) -> list[Job]:
    """Return the baselines, seed variants and the comparison of a job, ordered by seed."""
    return list(session.scalars(select(Job).where(Job.parent_id == job_id).order_by(SEED, Job.id)))


def dependents(session: Session, job_id: str) -> list[Job]:
    """Return the jobs that have not ended and need the student of the job or of one of its children, oldest first.

    Those that need such a job's student follow from it and are listed, too; children are represented by their parent.
    """
    active = Job.status.not_in([status for status in JobStatus if status.is_terminal])
    reached, frontier = dict[str, Job](), [job_id, *(child.id for child in children(session, job_id))]
    while frontier:
        needing = session.scalars(select(Job).where(uses_student_of(frontier), active)).all()
        frontier = [job.id for job in needing if job.id not in reached]
        reached |= {job.id: job for job in needing}
    heads = [job for job in reached.values() if job.parent_id is None]
    return sorted(heads, key=lambda job: (job.created_at, job.id))


def compared_runs(session: Session, comparison: Job) -> list[Job]:
    """Return the runs of a comparison: its parent job, then the parent's other children by seed."""
    parent = session.get(Job, comparison.parent_id) if comparison.parent_id else None
    if parent is None:
        return []
    return [parent, *(child for child in children(session, parent.id) if child.kind != COMPARE)]


def is_compared(run: type[Job] | AliasedClass[Job], comparison: type[Job] | AliasedClass[Job]) -> ColumnElement[bool]:
    """Return the condition that `run` is one of the runs of `comparison`."""
    relatives = or_(run.id == comparison.parent_id, run.parent_id == comparison.parent_id)
    return and_(comparison.kind == COMPARE, relatives, run.id != comparison.id)


def _find(session: Session, table: type[Named], id_or_name: str, owner: str, all_owners: bool) -> Named | None:
    """Return the best match: ids before names, then the owner's rows before others, then the oldest."""
    is_own = table.owner == owner
    query = select(table).where(or_(table.id == id_or_name, table.name == id_or_name))
    best_first = query.order_by((table.id == id_or_name).desc(), is_own.desc(), table.created_at, table.id).limit(1)
    return session.scalar(best_first if all_owners else best_first.where(is_own))
