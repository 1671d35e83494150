"""What a job needs on the disks of the worker that runs it, beyond what workers fetch from the artifacts."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError
from sqlalchemy.orm import Session

from frs.errors import DatasetNotFound
from frs.spec import DetectorByName, DetectorOfJob, DetectorRef, InitFromDetector, InitFromFile, JobSpec
from store.db.queries import COMPARE, datasets_of, find_detector, sees_everybodys
from store.db.tables import Dataset, Document, Job
from store.states import WaitingReason

_HALVES = ("train", "val")
_LONGEST_PLACE = 100


@dataclass(frozen=True)
class Requirement:
    """Files and folders that belong together; below the folder of data sets, or of models for weights."""

    key: str
    """The id of a data set that is trained on; of others a text that is no such id."""
    owner: str
    """Who may hear of it."""
    code: WaitingReason
    """Of a job that waits for it."""
    what: str
    """In words, after the path."""
    files: tuple[tuple[str, str | None], ...] = ()
    """Each with its SHA-256, where that is known."""
    folders: tuple[str, ...] = ()


def requirements_of(session: Session, job: Job) -> tuple[Requirement, ...]:
    """Without what is not there for anybody: the attempt will tell."""
    try:
        spec = JobSpec.model_validate(job.spec)
        datasets = datasets_of(session, job)
    except ValidationError as error:
        return (unreadable_spec(job.id, job.owner, _place(error)),)
    except DatasetNotFound:
        return ()
    sides = [] if spec.kind == COMPARE else [side for side in (spec.student, spec.teacher) if side]
    return (*_of_datasets(datasets), *(need for side in sides for need in _of_a_detector(session, job, side)))


def probe_job(id: str, request: Document, owner: str) -> Job:
    """What the probe of that id asks for, as a job that is in no table; its spec may be another version's."""
    spec, references = request["spec"], {"dataset_id": request["dataset_id"], "key_id": request.get("key_id")}
    return Job(id=id, spec=spec, devices=spec.get("resources", {}).get("devices"), owner=owner, **references)


def unreadable_spec(id: str, owner: str, what: str) -> Requirement:
    """Of a job or probe that this version cannot read; `what`: it stumbles over."""
    return Requirement(spec_key(id), owner, WaitingReason.SPEC, what)


def spec_key(id: str) -> str:
    """Of the need for somebody who can read the spec of that job or probe."""
    return f"spec/{id}"


def _place(error: ValidationError) -> str:
    """The first place in the spec that is unknown."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return ".".join(map(str, first["loc"]))[:_LONGEST_PLACE] or first["type"]


def _of_datasets(datasets: list[Dataset]) -> Iterator[Requirement]:
    """The first with both halves, another one with its training half."""
    for number, dataset in enumerate(datasets):
        if dataset.upload_key:
            continue
        halves, known = _HALVES[: 1 if number else 2], dataset.hashes or {}
        yield Requirement(
            key=f"{dataset.id}/train" if number else dataset.id,
            owner=dataset.owner,
            code=WaitingReason.DATASET,
            what=f" of data set {dataset.name}",
            files=tuple((getattr(dataset, f"{half}_annotations"), known.get(half)) for half in halves),
            folders=tuple(getattr(dataset, f"{half}_images") for half in halves),
        )


def _of_a_detector(session: Session, job: Job, ref: DetectorRef) -> Iterator[Requirement]:
    if isinstance(ref, DetectorByName):
        yield from _of_a_registered_one(session, job, ref.detector)
    elif isinstance(ref, DetectorOfJob):
        return
    elif isinstance(ref.init, InitFromDetector):
        yield from _of_a_registered_one(session, job, ref.init.detector)
    elif isinstance(ref.init, InitFromFile):
        file = ref.init.weights
        yield Requirement(f"weights/{file}", job.owner, WaitingReason.WEIGHTS, "", ((file, None),))


def _of_a_registered_one(session: Session, job: Job, name: str) -> Iterator[Requirement]:
    row = find_detector(session, name, job.owner, everybodys=sees_everybodys(session, job))
    if row is not None and row.weights_file is not None:
        files = ((row.weights_file, row.sha256),)
        yield Requirement(row.id, row.owner, WaitingReason.WEIGHTS, f" of detector {row.name}", files)
