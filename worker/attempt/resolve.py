"""A job as the engine wants it: ids and names become files and hashes. Raises FrsError with a code.

Artifacts are files only once its `AttemptInputs` have been fetched.
"""

from pathlib import Path

from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from frs.errors import DatasetNotFound, FrsError, WeightsNotFound
from frs.resolved import ResolvedDetector, ResolvedSpec, SplitFiles, inside, weights_file
from frs.spec import (
    DetectorByName,
    DetectorDescription,
    DetectorOfJob,
    DetectorRef,
    InitFromDetector,
    InitFromFile,
    JobSpec,
)
from store.artifacts.uploads import root_of
from store.db.queries import COMPARE, datasets_of, find_detector, last_student, sees_everybodys
from store.db.tables import Dataset, Detector, Job
from store.settings import Settings
from store.states import DetectorStatus
from worker.attempt.inputs import AttemptInputs
from worker.attempt.run_group import resolve_run_group

_description: TypeAdapter[DetectorDescription] = TypeAdapter(DetectorDescription)


def resolve_job(session: Session, settings: Settings, job: Job, inputs: AttemptInputs) -> ResolvedSpec:
    spec = JobSpec.model_validate(job.spec)
    dataset, *more = datasets_of(session, job)
    compares = spec.kind == COMPARE
    root = root_of(settings, dataset)
    return ResolvedSpec(
        job=spec,
        train=_split(root, dataset.name, dataset.train_images, dataset.train_annotations),
        val=_split(root, dataset.name, dataset.val_images, dataset.val_annotations),
        unlabelled=_unlabelled(settings, more[0]) if more else None,
        student=_described(spec) if compares else _detector(session, settings, job, spec.student, inputs),
        teacher=_detector(session, settings, job, spec.teacher, inputs) if spec.teacher else None,
        models=settings.models_root,
        run_group=resolve_run_group(session, job, inputs) if compares else None,
    )


def _unlabelled(settings: Settings, dataset: Dataset) -> SplitFiles:
    return _split(root_of(settings, dataset), dataset.name, dataset.train_images, dataset.train_annotations)


def _described(spec: JobSpec) -> ResolvedDetector:
    """For a comparison, which builds no detector."""
    return ResolvedDetector(description=_description.validate_python(spec.student.model_dump()))


def _split(root: Path, name: str, images: str, annotations: str) -> SplitFiles:
    split = SplitFiles(images=inside(root, images), annotations=inside(root, annotations))
    if not split.images.is_dir() or not split.annotations.is_file():
        raise DatasetNotFound(
            f"The files of data set {name!r} are gone: {images} or {annotations}.",
            "Put them back below the data sets' root, then post the job again.",
        )
    return split


def _detector(
    session: Session, settings: Settings, job: Job, ref: DetectorRef, inputs: AttemptInputs
) -> ResolvedDetector:
    if isinstance(ref, DetectorByName):
        row = _registered(session, job, ref.detector)
        return _with_weights(settings, row, _description.validate_python(row.description), inputs)
    if isinstance(ref, DetectorOfJob):
        return _student_of(session, ref.job, inputs)
    if isinstance(ref.init, InitFromDetector):
        return _with_weights(settings, _registered(session, job, ref.init.detector), ref, inputs)
    if isinstance(ref.init, InitFromFile):
        return ResolvedDetector(description=ref, weights=weights_file(settings.models_root, ref.init.weights))
    return ResolvedDetector(description=ref)


def _registered(session: Session, job: Job, name: str) -> Detector:
    row = find_detector(session, name, job.owner, everybodys=sees_everybodys(session, job))
    if row is None:
        raise WeightsNotFound(f"No detector {name!r} is registered.", "See GET /detectors.")
    if row.status != DetectorStatus.READY:
        raise WeightsNotFound(f"Detector {name!r} is {row.status}.", f"See GET /detectors/{row.id}.")
    return row


def _with_weights(
    settings: Settings, row: Detector, description: DetectorDescription, inputs: AttemptInputs
) -> ResolvedDetector:
    if row.weights_file is not None:
        weights = weights_file(settings.models_root, row.weights_file)
    else:
        weights = inputs.want(
            str(row.weights_key), row.sha256, _no_student(f"The weights of detector {row.name!r} are gone.")
        )
    return _loaded(description, row.name, weights, row.sha256)


def _student_of(session: Session, job_id: str, inputs: AttemptInputs) -> ResolvedDetector:
    job = session.get(Job, job_id)
    student = last_student(session, job_id)
    if job is None or student is None:
        raise _no_student(f"Job {job_id} has left no student.")
    description = _description.validate_python(job.spec["student"])
    gone = _no_student(f"The student of job {job_id} is gone.")
    weights = inputs.want(student.key, student.sha256, gone, student.bytes)
    return _loaded(description, job_id, weights, student.sha256)


def _loaded(description: DetectorDescription, name: str, weights: Path, sha256: str) -> ResolvedDetector:
    """`init` says where the weights come from, whatever they were trained from: no ImageNet file is needed for them."""
    from_here = description.model_copy(update={"init": InitFromDetector(detector=name)})
    return ResolvedDetector(description=from_here, weights=weights, sha256=sha256)


def _no_student(message: str) -> FrsError:
    return WeightsNotFound(message, "Train it again, or name another detector.")
