"""How what a spec refers to is found: a data set or detector by id or name, a job's last student, jobs by tag or run_group."""

from typing import TypeVar

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session
from sqlalchemy.orm.util import AliasedClass

from frs.errors import DatasetNotFound
from store.db import api_keys
from store.db.tables import ApiKey, Checkpoint, Dataset, Detector, Job
from store.states import JobStatus

COMPARE = "compare"
Named = TypeVar("Named", Dataset, Detector)


def find_dataset(session: Session, id_or_name: str, owner: str, *, everybodys: bool = False) -> Dataset | None:
    """Among the owner's, or with `everybodys` among all, where the owner's own name wins."""
    return _find(session, Dataset, id_or_name, owner, everybodys)


def find_detector(session: Session, id_or_name: str, owner: str, *, everybodys: bool = False) -> Detector | None:
    """As `find_dataset`."""
    return _find(session, Detector, id_or_name, owner, everybodys)


def sees_everybodys(session: Session, job: Job) -> bool:
    """Whether the job was posted by an admin, whose specs may name what others own."""
    key = session.get(ApiKey, job.key_id) if job.key_id else None
    return key is not None and api_keys.widest_scope(key) is api_keys.Scope.ADMIN


def last_student(session: Session, job_id: str) -> Checkpoint | None:
    students = select(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.kind == "student")
    return next((student for student in session.scalars(students) if "last" in student.labels), None)


def has_tag(session: Session, tag: str) -> ColumnElement[bool]:
    """Of the jobs that carry that very tag."""
    if session.get_bind().dialect.name == "sqlite":
        tags = func.json_each(Job.tags).table_valued("value")
        return exists().where(tags.c.value == tag)
    tags = func.json_array_elements_text(Job.tags).table_valued("value")
    return exists().where(tags.c.value == tag)


def datasets_of(session: Session, job: Job) -> list[Dataset]:
    """What a job trains and is scored on, then, if it names one, what it looks at without boxes. Raises DatasetNotFound."""
    named = job.spec.get("unlabelled")
    found = [session.get(Dataset, job.dataset_id) if job.dataset_id else None]
    if named:
        found.append(find_dataset(session, named, job.owner, everybodys=sees_everybodys(session, job)))
    if None in found:
        raise DatasetNotFound("A data set that it names is not registered any more.", "See GET /datasets.")
    return [dataset for dataset in found if dataset]


def is_used_unlabelled(session: Session, dataset: Dataset) -> bool:
    """Whether a job that has not ended looks at its images without their boxes."""
    named = refers_to(Job.spec["unlabelled"].as_string(), dataset)
    active = Job.status.not_in([status for status in JobStatus if status.is_terminal])
    return session.scalar(select(exists().where(named, active))) or False


def refers_to(reference: ColumnElement[str], row: Dataset | Detector) -> ColumnElement[bool]:
    """Whether that place of a job's spec means `row`: by its id, or by its name where the owner is the same."""
    return or_(reference == row.id, and_(reference == row.name, Job.owner == row.owner))


def children(session: Session, job_id: str) -> list[Job]:
    """Baselines, siblings and the comparison of a job, by seed."""
    by_seed = Job.spec["schedule"]["seed"].as_integer()
    return list(session.scalars(select(Job).where(Job.parent_id == job_id).order_by(by_seed, Job.id)))


def compared_runs(session: Session, comparison: Job) -> list[Job]:
    """What a comparison compares: the job that asked for it first, then its children by seed."""
    parent = session.get(Job, comparison.parent_id) if comparison.parent_id else None
    if parent is None:
        return []
    return [parent, *(child for child in children(session, parent.id) if child.kind != COMPARE)]


def is_compared(run: type[Job] | AliasedClass[Job], comparison: type[Job] | AliasedClass[Job]) -> ColumnElement[bool]:
    """Whether `comparison` needs `run`."""
    relatives = or_(run.id == comparison.parent_id, run.parent_id == comparison.parent_id)
    return and_(comparison.kind == COMPARE, relatives, run.id != comparison.id)


def _find(session: Session, table: type[Named], id_or_name: str, owner: str, everybodys: bool) -> Named | None:
    """An id wins over a name, the owner's over others', the oldest of those."""
    is_own = table.owner == owner
    query = select(table).where(or_(table.id == id_or_name, table.name == id_or_name))
    best_first = query.order_by((table.id == id_or_name).desc(), is_own.desc(), table.created_at, table.id).limit(1)
    return session.scalar(best_first if everybodys else best_first.where(is_own))
