"""The resolved spec, which the engine runs: a job spec with every reference replaced by files."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from frs.detector_spec import (
    ConfigDetector,
    DescribedDetector,
    DetectorRef,
    InitFromBackbone,
    InitFromFile,
    RelativePath,
)
from frs.errors import DatasetNotFound, InvalidSpec, WeightsNotFound
from frs.facts import RunFacts
from frs.spec import JobSpec

MAP = "val/bbox_mAP"


class _Resolved(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class SplitFiles(_Resolved):
    """The files of one split of a data set."""

    images: Path
    """Folder of images."""
    annotations: Path
    """COCO annotation file."""


class ResolvedDetector(_Resolved):
    """A detector's description and the file of its weights."""

    description: ConfigDetector | DescribedDetector
    weights: Path | None = None
    """Weights file to load; None if `description.init` is `random`, `imagenet` or `{backbone: FILE}`."""
    sha256: str | None = None
    """Expected SHA-256 of the weights file, if it is known."""
    classes: tuple[str, ...] | None = None
    """Class names given at the registration, for a weights file without any."""


def detections_file(role: Literal["student", "teacher"]) -> str:
    """Return the name of a run's artifact with the detections of its student or teacher on the validation images."""
    return f"detections-{role}.npz"


class FinishedRun(_Resolved):
    """The results of a run that a comparison uses."""

    role: Literal["student", "baseline"]
    seed: int
    detections: Path
    curves: dict[str, list[tuple[int, float | None]]] = {}
    """Metrics by key as (step, value) pairs in ascending order of steps, subsampled."""
    end_reason: str | None = None
    """End reason of the run."""


class ComparisonInputs(_Resolved):
    """The finished runs that a comparison job reads: a student and a baseline for every seed."""

    runs: tuple[FinishedRun, ...]
    teacher: Path | None = None
    """File of the teacher's detections."""
    facts: RunFacts = RunFacts()
    """Facts of the first student's run, for the report."""


class ResolvedSpec(_Resolved):
    """A job spec and the files it refers to."""

    job: JobSpec
    train: SplitFiles
    val: SplitFiles
    unlabelled: SplitFiles | None = None
    """Images that only the distillation terms use, without boxes."""
    student: ResolvedDetector
    teacher: ResolvedDetector | None = None
    models: Path
    """Folder of weights, which also holds the ImageNet backbones."""
    comparison_inputs: ComparisonInputs | None = None
    """The runs to compare; only for kind `compare`."""


def resolve(job: JobSpec, data: Path, models: Path) -> ResolvedSpec:
    """Resolve `job` without the service: data sets are folders in `data`, weights are files in `models`.

    Raises DatasetNotFound, WeightsNotFound, or InvalidSpec for references that only the service can resolve.
    """
    folder = inside(data, job.dataset)
    return ResolvedSpec(
        job=job,
        train=_split_files(folder, "train"),
        val=_split_files(folder, "val"),
        unlabelled=_split_files(inside(data, job.unlabelled), "train") if job.unlabelled else None,
        student=_resolve_detector(job.student, models),
        teacher=_resolve_detector(job.teacher, models) if job.teacher else None,
        models=models,
    )


def inside(root: Path, relative: RelativePath) -> Path:
    """Return `root / relative` with links resolved. Raise InvalidSpec if the path is outside `root`."""
    path = (root / relative).resolve()
    if not path.is_relative_to(root.resolve()):
        raise InvalidSpec(f"{relative!r} lies outside its folder.", "Name a file or folder below it.")
    return path


def weights_file(models: Path, relative: RelativePath) -> Path:
    """Return the path of a weights file in the models folder. Raise WeightsNotFound if it does not exist."""
    path = inside(models, relative)
    if not path.is_file():
        raise WeightsNotFound(f"No file {relative!r} in the models folder.")
    return path


def is_drawn(key: str) -> bool:
    """Return whether a metric is part of a run's curves: validation mAP and the terms of the loss."""
    return key == MAP or (key.startswith("train/") and ("loss" in key or "distill" in key))


def _split_files(folder: Path, name: str) -> SplitFiles:
    split = SplitFiles(images=folder / name, annotations=folder / "annotations" / f"instances_{name}.json")
    if not split.images.is_dir() or not split.annotations.is_file():
        raise DatasetNotFound(
            f"Data set {folder.name!r} has no {name}/ with annotations/instances_{name}.json.",
            "A data set is a folder with train/, val/ and annotations/instances_{train,val}.json; "
            "name its parent with --data.",
        )
    return split


def _resolve_detector(ref: DetectorRef, models: Path) -> ResolvedDetector:
    if not isinstance(ref, ConfigDetector | DescribedDetector):
        raise InvalidSpec(
            "Only the service can resolve registered detectors and other jobs.",
            "Describe the detector, with `init: {weights: FILE}`, or post the job to the service.",
        )
    if isinstance(ref.init, InitFromFile):
        return ResolvedDetector(description=ref, weights=weights_file(models, ref.init.weights))
    if isinstance(ref.init, InitFromBackbone):
        weights_file(models, ref.init.backbone)
    elif ref.init not in ("random", "imagenet"):
        raise InvalidSpec(
            "Only the service can resolve `init: {detector}` and `init: {job}`.", "Use `init: {weights: FILE}`."
        )
    return ResolvedDetector(description=ref)
