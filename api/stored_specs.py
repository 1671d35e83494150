"""Stored specs of jobs, which another version may have written."""

from pydantic import TypeAdapter, ValidationError

from api.http.errors import ApiError, InvalidField
from frs.detector_spec import DetectorDescription
from frs.spec import JobSpec
from store.db.tables import Job

_description: TypeAdapter[DetectorDescription] = TypeAdapter(DetectorDescription)


def read_spec(job: Job) -> JobSpec:
    """Return the stored spec of a job. Raises ApiError 409 if it is of a version that this one cannot read."""
    try:
        return JobSpec.model_validate(job.spec)
    except ValidationError as error:
        detail = f"Job {job.title} was stored by another version of FRS; this version cannot read its spec."
        raise ApiError(409, "spec_unreadable", detail, "Update FRS, or submit the job again.") from error


def has_readable_student(job: Job) -> bool:
    """Return whether this version can read the description of the student that the job trains."""
    try:
        _description.validate_python(job.spec["student"])
    except ValidationError:
        return False
    return True


def check_readable_student(job: Job, loc: str) -> None:
    """Raise InvalidField for the field `loc`, which names a job, unless this version can read the job's student."""
    if not has_readable_student(job):
        detail = f"Job {job.title} was stored by another version of FRS; this version cannot read its student."
        raise InvalidField(loc, "spec_unreadable", detail, "Update FRS, or submit that job again.")
