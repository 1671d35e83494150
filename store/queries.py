"""How what a spec refers to is found: a data set or detector by id or name, a job's last student, jobs by tag."""

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session

from store.tables import Checkpoint, Dataset, Detector, Job


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
    """Of the jobs whose spec carries that very tag."""
    if session.get_bind().dialect.name == "sqlite":
        tags = func.json_each(Job.spec, "$.tags").table_valued("value")
        return exists().where(tags.c.value == tag)
    tags = func.json_array_elements_text(Job.spec["tags"]).table_valued("value")
    return exists().where(tags.c.value == tag)
