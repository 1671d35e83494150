"""Resolution of a job's spec for the engine: ids and names become files and hashes."""

from pathlib import Path

from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from frs.detector_spec import (
    DetectorByName,
    DetectorDescription,
    DetectorOfJob,
    DetectorRef,
    InitFromBackbone,
    InitFromDetector,
    InitFromFile,
    InitFromJob,
)
from frs.errors import DatasetNotFound, FrsError, WeightsNotFound
from frs.resolved import ResolvedDetector, ResolvedSpec, SplitFiles, inside, weights_file
from frs.spec import JobSpec
from store.artifacts.uploads import dataset_root
from store.db.queries import COMPARE, datasets_of, find_detector, last_student, sees_all_owners
from store.db.tables import Dataset, Detector, Job
from store.settings import Settings
from store.states import DetectorStatus
from worker.attempt.comparison_inputs import resolve_comparison_inputs
from worker.attempt.inputs import AttemptInputs

_description: TypeAdapter[DetectorDescription] = TypeAdapter(DetectorDescription)


def resolve_job(session: Session, settings: Settings, job: Job, inputs: AttemptInputs) -> ResolvedSpec:
    """Return the job's spec with the paths of its files, and add the artifacts among them to the inputs.

    Paths of artifacts exist only after `inputs.fetch`. Raises DatasetNotFound, WeightsNotFound, DetectionsUnusable,
    InvalidSpec.
    """
    spec = JobSpec.model_validate(job.spec)
    dataset, *unlabelled_datasets = datasets_of(session, job)
    is_comparison = spec.kind == COMPARE
    root = dataset_root(settings, dataset)
    return ResolvedSpec(
        job=spec,
        train=_split(root, dataset.name, dataset.train_images, dataset.train_annotations),
        val=_split(root, dataset.name, dataset.val_images, dataset.val_annotations),
        unlabelled=_train_split(settings, unlabelled_datasets[0]) if unlabelled_datasets else None,
        student=_described_student(spec) if is_comparison else _detector(session, settings, job, spec.student, inputs),
        teacher=_detector(session, settings, job, spec.teacher, inputs) if spec.teacher else None,
        models=settings.models_root,
        comparison_inputs=resolve_comparison_inputs(session, job, inputs) if is_comparison else None,
    )


def _train_split(settings: Settings, dataset: Dataset) -> SplitFiles:
    return _split(dataset_root(settings, dataset), dataset.name, dataset.train_images, dataset.train_annotations)


def _described_student(spec: JobSpec) -> ResolvedDetector:
    """Return the student without weights, for a comparison, which builds no detector."""
    return ResolvedDetector(description=_description.validate_python(spec.student.model_dump()))


def _split(root: Path, name: str, images: str, annotations: str) -> SplitFiles:
    split = SplitFiles(images=inside(root, images), annotations=inside(root, annotations))
    if not split.images.is_dir() or not split.annotations.is_file():
        raise DatasetNotFound(
            f"Data set {name!r} has no folder {images} or no file {annotations}.",
            "Restore them below the data sets' root, then post the job again.",
        )
    return split


def _detector(
    session: Session, settings: Settings, job: Job, ref: DetectorRef, inputs: AttemptInputs
) -> ResolvedDetector:
    if isinstance(ref, DetectorByName):
        row = _ready_detector(session, job, ref.detector)
        return _with_weights(settings, row, _description.validate_python(row.description), inputs)
    if isinstance(ref, DetectorOfJob):
        return _student_of(session, ref.job, inputs)
    if isinstance(ref.init, InitFromJob):
        return _student_of(session, ref.init.job, inputs, ref)
    if isinstance(ref.init, InitFromDetector):
        return _with_weights(settings, _ready_detector(session, job, ref.init.detector), ref, inputs)
    if isinstance(ref.init, InitFromFile):
        return ResolvedDetector(description=ref, weights=weights_file(settings.models_root, ref.init.weights))
    if isinstance(ref.init, InitFromBackbone):
        weights_file(settings.models_root, ref.init.backbone)
    return ResolvedDetector(description=ref)


def _ready_detector(session: Session, job: Job, name: str) -> Detector:
    row = find_detector(session, name, job.owner, all_owners=sees_all_owners(session, job))
    if row is None:
        raise WeightsNotFound(f"No detector {name!r} is registered.", "The list of detectors has their names.")
    if row.status != DetectorStatus.READY:
        raise WeightsNotFound(f"Detector {name!r} is {row.status}.", "The list of detectors shows why.")
    return row


def _with_weights(
    settings: Settings, row: Detector, description: DetectorDescription, inputs: AttemptInputs
) -> ResolvedDetector:
    if row.weights_file is not None:
        weights = weights_file(settings.models_root, row.weights_file)
    else:
        missing_error = _weights_not_found(f"The weights of detector {row.name!r} were deleted.")
        weights = inputs.add(str(row.weights_key), row.sha256, missing_error)
    resolved = _with_file(description, row.name, weights, row.sha256)
    return resolved.model_copy(update={"classes": row.classes and tuple(row.classes)})


def _student_of(
    session: Session, job_id: str, inputs: AttemptInputs, description: DetectorDescription | None = None
) -> ResolvedDetector:
    """Return the student of a job; `description` is that of a detector which starts from its weights."""
    job = session.get(Job, job_id)
    student = last_student(session, job_id)
    if job is None or student is None:
        raise _weights_not_found(f"Job {job_id} has no student.")
    description = description or _description.validate_python(job.spec["student"])
    missing_error = _weights_not_found(f"The student of job {job_id} was deleted.")
    weights = inputs.add(student.key, student.sha256, missing_error, student.bytes)
    return _with_file(description, job_id, weights, student.sha256)


def _with_file(description: DetectorDescription, name: str, weights: Path, sha256: str) -> ResolvedDetector:
    """Return the detector with these weights.

    `init` is replaced by the detector's name: no ImageNet file is required, whatever the weights were trained from.
    """
    initialised = description.model_copy(update={"init": InitFromDetector(detector=name)})
    return ResolvedDetector(description=initialised, weights=weights, sha256=sha256)


def _weights_not_found(message: str) -> FrsError:
    return WeightsNotFound(message, "Train it again, or name another detector.")
