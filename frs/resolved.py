"""The resolved spec: a job spec with every reference turned into files. What the engine runs."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from frs.errors import DatasetNotFound, InvalidSpec, WeightsNotFound
from frs.spec import (
    ConfigDetector,
    DescribedDetector,
    DetectorRef,
    InitFromFile,
    JobSpec,
    RelativePath,
)


class _Resolved(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class SplitFiles(_Resolved):
    """Images and boxes of one half of a data set."""

    images: Path
    annotations: Path


class ResolvedDetector(_Resolved):
    description: ConfigDetector | DescribedDetector
    weights: Path | None = None
    """File to load; absent where `description.init` is `random` or `imagenet`."""
    sha256: str | None = None
    """What that file must hash to, where it is known."""


MAP = "val/bbox_mAP"


class FinishedRun(_Resolved):
    """A run that has ended, as far as a comparison needs it."""

    role: Literal["student", "baseline"]
    seed: int
    detections: Path
    curves: dict[str, list[tuple[int, float | None]]] = {}
    """Metrics by key as (step, value), ascending, thinned out."""


def is_drawn(key: str) -> bool:
    """Whether a metric belongs to a run's curves: mAP and the terms of the loss."""
    return key == MAP or (key.startswith("train/") and ("loss" in key or "distill" in key))


class RunGroup(_Resolved):
    """The runs a comparison compares: of every seed a student and a baseline."""

    runs: tuple[FinishedRun, ...]
    teacher: Path | None = None
    """Its detections."""
    facts: dict[str, Any] = {}
    """Of the first student's run, for the report."""


class ResolvedSpec(_Resolved):
    job: JobSpec
    train: SplitFiles
    val: SplitFiles
    unlabelled: SplitFiles | None = None
    """Its images teach through the teacher alone."""
    student: ResolvedDetector
    teacher: ResolvedDetector | None = None
    models: Path
    """Folder of weights; ImageNet backbones are looked up here."""
    run_group: RunGroup | None = None
    """Only for kind `compare`."""


def resolve(job: JobSpec, data: Path, models: Path) -> ResolvedSpec:
    """Resolves `job` for the engine used alone: data sets are folders under `data`, weights files under `models`.

    Raises DatasetNotFound, WeightsNotFound, or InvalidSpec for references only the service knows.
    """
    folder = inside(data, job.dataset)
    return ResolvedSpec(
        job=job,
        train=_split(folder, "train"),
        val=_split(folder, "val"),
        unlabelled=_split(inside(data, job.unlabelled), "train") if job.unlabelled else None,
        student=_detector(job.student, models),
        teacher=_detector(job.teacher, models) if job.teacher else None,
        models=models,
    )


def inside(root: Path, relative: RelativePath) -> Path:
    """`root / relative`, links followed. Raises InvalidSpec when that lies outside `root`."""
    path = (root / relative).resolve()
    if not path.is_relative_to(root.resolve()):
        raise InvalidSpec(f"{relative!r} lies outside its folder.", "Name a file or folder below it.")
    return path


def weights_file(models: Path, relative: RelativePath) -> Path:
    path = inside(models, relative)
    if not path.is_file():
        raise WeightsNotFound(f"No file {relative!r} in the models folder.")
    return path


def _split(folder: Path, name: str) -> SplitFiles:
    split = SplitFiles(images=folder / name, annotations=folder / "annotations" / f"instances_{name}.json")
    if not split.images.is_dir() or not split.annotations.is_file():
        raise DatasetNotFound(
            f"Data set {folder.name!r} has no {name}/ with annotations/instances_{name}.json.",
            "A data set is a folder with train/, val/ and annotations/instances_{train,val}.json; name its parent with --data.",
        )
    return split


def _detector(ref: DetectorRef, models: Path) -> ResolvedDetector:
    if not isinstance(ref, ConfigDetector | DescribedDetector):
        raise InvalidSpec(
            "Registered detectors and other jobs are known to the service only.",
            "Describe the detector, with `init: {weights: FILE}`, or post the job to the service.",
        )
    if isinstance(ref.init, InitFromFile):
        return ResolvedDetector(description=ref, weights=weights_file(models, ref.init.weights))
    if ref.init not in ("random", "imagenet"):
        raise InvalidSpec("`init: {detector}` is known to the service only.", "Use `init: {weights: FILE}`.")
    return ResolvedDetector(description=ref)
