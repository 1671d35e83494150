"""How what a spec refers to is found: a data set or detector by id or name, a job's last student, jobs by tag or family."""

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session
from sqlalchemy.orm.util import AliasedClass

from store.states import JobStatus
from store.tables import Checkpoint, Dataset, Detector, Job

COMPARE = "compare"


def find_dataset(session: Session, id_or_name: str) -> Dataset | None:
    by_name = select(Dataset).where(Dataset.name == id_or_name)
    return session.get(Dataset, id_or_name) or session.scalar(by_name)


def find_detector(session: Session, id_or_name: str) -> Detector | None:
    by_name = select(Detector).where(Detector.name == id_or_name)
    return session.get(Detector, id_or_name) or session.scalar(by_name)


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


def teaches_unlabelled(session: Session, dataset: Dataset) -> bool:
    """Whether a job that has not ended looks at its images without their boxes."""
    named = Job.spec["unlabelled"].as_string().in_([dataset.id, dataset.name])
    active = Job.status.not_in([status for status in JobStatus if status.is_terminal])
    return session.scalar(select(exists().where(named, active))) or False


def children(session: Session, job_id: str) -> list[Job]:
    """Baselines, siblings and the comparison of a job, by seed."""
    by_seed = Job.spec["schedule"]["seed"].as_integer()
    return list(session.scalars(select(Job).where(Job.parent_id == job_id).order_by(by_seed, Job.id)))


def runs_of(session: Session, comparison: Job) -> list[Job]:
    """What a comparison compares: the job that asked for it first, then its children by seed."""
    parent = session.get(Job, comparison.parent_id) if comparison.parent_id else None
    if parent is None:
        return []
    return [parent, *(child for child in children(session, parent.id) if child.kind != COMPARE)]


def is_compared(run: type[Job] | AliasedClass[Job], comparison: type[Job] | AliasedClass[Job]) -> ColumnElement[bool]:
    """Whether `comparison` needs `run`."""
    relatives = or_(run.id == comparison.parent_id, run.parent_id == comparison.parent_id)
    return and_(comparison.kind == COMPARE, relatives, run.id != comparison.id)
