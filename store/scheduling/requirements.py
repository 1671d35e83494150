"""Files that a job requires on the disks of its worker, in addition to artifacts, which workers fetch themselves."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError
from sqlalchemy.orm import Session

from frs import published_weights
from frs.detector_spec import (
    DescribedDetector,
    DetectorByName,
    DetectorOfJob,
    DetectorRef,
    InitFromBackbone,
    InitFromDetector,
    InitFromFile,
)
from frs.errors import DatasetNotFound
from frs.published_weights import PublishedFile
from frs.spec import JobSpec
from store.db.queries import COMPARE, datasets_of, find_detector, sees_all_owners
from store.db.tables import Dataset, Document, Job
from store.states import WaitingReason

_SPLITS = ("train", "val")
_MAX_FIELD_LENGTH = 100


@dataclass(frozen=True)
class Requirement:
    """Files and folders that belong together, the ability to read a job's spec, or free disk space."""

    key: str
    """Id of the data set or detector, or another text that identifies the requirement. Only for the data set that a
    job trains on is the key a data set's id."""
    owner: str | None
    """Owner whose users may see the requirement; None: no job has it yet, only plans read it."""
    reason: WaitingReason
    """Waiting reason of a job whose requirement no worker meets."""
    label: str
    """Text that follows a file's path in messages, such as ` of data set shapes`; for an unreadable spec, the name of
    the unknown field."""
    files: tuple[tuple[str, str | None], ...] = ()
    """Path and, if known, SHA-256 of each file; relative to the data sets' or the models folder."""
    folders: tuple[str, ...] = ()
    """Paths of folders, relative likewise."""
    published: tuple[PublishedFile, ...] = ()
    """Published files of which one is required, in the models folder, in an installed package or in a cache."""


FREE_SPACE = Requirement("storage", owner="", reason=WaitingReason.STORAGE, label="")
"""The requirement of every job that `min_free_mb` is free."""


def imagenet_weights(source: str, owner: str | None) -> Requirement:
    """Return the requirement of the ImageNet weights of `source`; without an owner, before any job has it."""
    files = published_weights.imagenet_files(source)
    return Requirement(f"imagenet/{source}", owner, WaitingReason.WEIGHTS, label="", published=files)


def requirements_of(session: Session, job: Job) -> tuple[Requirement, ...]:
    """Return the requirements of the job.

    Rows that no longer exist are not listed: the attempt fails with the error.
    """
    try:
        spec = JobSpec.model_validate(job.spec)
        datasets = datasets_of(session, job)
    except ValidationError as error:
        return (unreadable_spec(job.id, job.owner, _unknown_field(error)),)
    except DatasetNotFound:
        return ()
    detectors = [] if spec.kind == COMPARE else [ref for ref in (spec.student, spec.teacher) if ref]
    detector_files = (item for ref in detectors for item in _detector_requirements(session, job, ref))
    return (*_dataset_requirements(datasets), *detector_files)


def probe_job(id: str, request: Document, owner: str) -> Job:
    """Return the probe request as a job that is in no table; its spec may be of another version."""
    spec, references = request["spec"], {"dataset_id": request["dataset_id"], "key_id": request.get("key_id")}
    return Job(id=id, spec=spec, devices=spec.get("resources", {}).get("devices"), owner=owner, **references)


def unreadable_spec(id: str, owner: str, label: str) -> Requirement:
    """Return the requirement of a job or probe whose spec this version cannot read; `label` names the field."""
    return Requirement(spec_key(id), owner, WaitingReason.SPEC, label)


def spec_key(id: str) -> str:
    """Return the key of the requirement to read the spec of that job or probe."""
    return f"spec/{id}"


def _unknown_field(error: ValidationError) -> str:
    """Return the dotted name of the first invalid field of the spec."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return ".".join(map(str, first["loc"]))[:_MAX_FIELD_LENGTH] or first["type"]


def _dataset_requirements(datasets: list[Dataset]) -> Iterator[Requirement]:
    """Yield both splits of the first data set, and the training split of the second."""
    for number, dataset in enumerate(datasets):
        if dataset.upload_key:
            continue
        splits, hashes = _SPLITS[: 1 if number else 2], dataset.hashes or {}
        yield Requirement(
            key=f"{dataset.id}/train" if number else dataset.id,
            owner=dataset.owner,
            reason=WaitingReason.DATASET,
            label=f" of data set {dataset.name}",
            files=tuple((getattr(dataset, f"{split}_annotations"), hashes.get(split)) for split in splits),
            folders=tuple(getattr(dataset, f"{split}_images") for split in splits),
        )


def _detector_requirements(session: Session, job: Job, ref: DetectorRef) -> Iterator[Requirement]:
    if isinstance(ref, DetectorByName):
        yield from _registered_weights(session, job, ref.detector)
    elif isinstance(ref, DetectorOfJob):
        return
    elif isinstance(ref.init, InitFromDetector):
        yield from _registered_weights(session, job, ref.init.detector)
    elif isinstance(ref.init, InitFromFile | InitFromBackbone):
        file = ref.init.weights if isinstance(ref.init, InitFromFile) else ref.init.backbone
        yield Requirement(f"weights/{file}", job.owner, WaitingReason.WEIGHTS, "", ((file, None),))
    elif ref.init == "imagenet" and isinstance(ref, DescribedDetector):  # mmdet, not imported here, reads a config
        requirement = imagenet_weights(published_weights.imagenet_source(ref), job.owner)
        yield from [requirement] if requirement.published else []


def _registered_weights(session: Session, job: Job, name: str) -> Iterator[Requirement]:
    row = find_detector(session, name, job.owner, all_owners=sees_all_owners(session, job))
    if row is not None and row.weights_file is not None:
        files = ((row.weights_file, row.sha256),)
        yield Requirement(row.id, row.owner, WaitingReason.WEIGHTS, f" of detector {row.name}", files)
