"""The facts of a run: values for its report that only the engine has. This module does not import torch."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from frs.distillation_spec import Method, TermName, Weight


@dataclass
class LossWeights:
    """Weights of the terms, before the factor of ramp and schedule; None until calibrated."""

    feature: float | None
    """Weight alpha of the feature term."""
    logit: float | None
    """Weight beta of the logit term."""
    ramp_from: int = 0
    """Step at which the ramp starts."""
    calibrated_at: int = 0
    """Step of the last calibration."""

    def of(self, term: TermName) -> float | None:
        """Return the weight of `term`."""
        return self.feature if term == "feature" else self.logit


class TeacherClasses(BaseModel):
    """The classes of a teacher whose classes are not the data set's."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    total: int
    """Number of the teacher's classes."""
    used: int
    """Number of the teacher's classes that are mapped by name to those of the data set; 0 if the teacher lacks some,
    keeps its own classes and is not evaluated."""

    def describe(self) -> str:
        """Return a sentence about the classes."""
        if self.used:
            return f"The teacher's classes are mapped by name: {self.used} of its {self.total}."
        return f"The teacher keeps its own {self.total} classes, because it lacks some of the data set's."


class TeacherInit(BaseModel):
    """The layers of a student whose neck and head start from the teacher's weights."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    copied: tuple[str, ...]
    """Layers that start from the teacher's weights, such as `bbox_head.cls_convs.0.conv`."""
    own: tuple[str, ...]
    """Layers that keep their own initial weights, because the teacher has none of that name and shape."""

    def describe(self) -> str:
        """Return a sentence about the layers; it names the first that keep their own weights."""
        total, names = len(self.copied) + len(self.own), ", ".join(self.own[:4])
        more = f" and {len(self.own) - 4} more" if len(self.own) > 4 else ""
        kept = f" {names}{more} have their own." if self.own else ""
        return f"{len(self.copied)} of the {total} layers in neck and head start from the teacher's weights.{kept}"


class RunFacts(BaseModel):
    """The facts of a run. The engine emits each one when it is known; a fact that is None is not dumped."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    classes: tuple[str, ...] | None = None
    """Class names in the order of the labels."""
    train_annotations_sha256: str | None = None
    val_annotations_sha256: str | None = None
    training_images: int | None = None
    """Number of images that are trained on."""
    max_detections: int | None = None
    """Number of detections on an image that count."""
    unlabelled_annotations_sha256: str | None = None
    unlabelled_images: int | None = None
    processes: int | None = None
    """Number of processes that train."""
    device: str | None = None
    precision: str | None = None
    versions: dict[str, str] | None = None
    """Versions of Python and of the main packages."""
    warnings: tuple[str, ...] | None = None

    student_sha256: str | None = None
    """SHA-256 of the student's weights file."""
    student_image_size: tuple[int, int] | None = None
    """[width, height] in pixels that images were scaled into for the student's evaluation."""
    student_parameters: int | None = None
    student_flops: int | None = None
    student_latency_ms: float | None = None
    weights_left_out: tuple[str, ...] | None = None
    """Keys of the student's class layers that were not loaded because its weights file has other classes."""
    teacher_init: TeacherInit | None = None
    """The layers that start from the teacher's weights, with `distillation.init_from_teacher`."""
    teacher_sha256: str | None = None
    """Fingerprint of the teacher's weights."""
    teacher_classes: TeacherClasses | None = None
    """The teacher's classes, unless they are the data set's."""
    teacher_image_size: tuple[int, int] | None = None
    """[width, height] in pixels that images were scaled into for the teacher's evaluation."""
    teacher_parameters: int | None = None
    teacher_flops: int | None = None
    teacher_latency_ms: float | None = None
    teacher_cache: bool | None = None
    """Whether the teacher's outputs were cached."""
    latency_device: str | None = None
    latency_load: float | None = None
    """Mean number of threads that wanted to run during these measurements, per CPU of the machine: well above 1, other
    work made the latencies longer."""
    flops_convention: str | None = None

    method: Method | None = None
    method_settings: dict[str, str] | None = None
    """Mask, distance, adapter and weight schedule that the spec sets, if any."""
    strides: tuple[int, ...] | None = None
    """Strides that teacher and student have in common."""
    weights_asked: dict[TermName, Weight] | None = None
    """Weights of the terms in the spec."""
    weights_paper: dict[TermName, float] | None = None
    """The paper's weights for the student's head, if it has any."""
    weights_shares: dict[TermName, float] | None = None
    """Target ratio of gradient norms, for the terms whose weight is calibrated."""
    weights: LossWeights | None = None
    """Weights of the terms."""
    gradients_at_start: dict[str, float | None] | None = None
    """Gradient norms of the task loss and of each term before the first step."""

    comparison: dict[str, Any] | None = None
    """Result of a comparison job: the fields of `frs.evaluation.verdict.Comparison`."""
    export: dict[str, Any] | None = None
    """Result of an export job: the fields of `frs.evaluation.export_report.ExportReport`."""

    @property
    def teacher_evaluated(self) -> bool:
        """Whether a teacher is evaluated: its classes include those of the data set."""
        return self.teacher_classes is None or self.teacher_classes.used > 0

    @model_serializer(mode="wrap")
    def _dump_known(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in dump(self).items() if value is not None}
