"""The estimate of a job before it runs. This module does not import torch."""

from pydantic import BaseModel, ConfigDict

from frs.errors import InvalidSpec
from frs.preflight.step_runner import Check

FLOPS_CONVENTION = "one multiply-add is one FLOP; convolutions and matrix products; one image"


class DetectorCost(BaseModel):
    """The cost of a detector's prediction for one image."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    parameters: int
    """Number of parameters."""
    flops: int
    """FLOPs, counted by the estimate's `flops_convention`."""
    latency_ms: float
    """Median time of a prediction in ms."""


class Estimate(BaseModel):
    """Checks, cost and duration of a job. A value is null if it could not be measured; a check gives the reason."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    ok: bool
    """Whether no check failed."""
    checks: list[Check]
    """Results of the checks, in order."""
    device: str | None = None
    """Name of the device."""
    precision: str | None = None
    """Precision of the forward passes: `fp32`, `bf16` or `fp16`."""
    classes: list[str] | None = None
    """Class names in the order of the labels."""
    training_images: int | None = None
    """Images that are trained on."""
    validation_images: int | None = None
    """Validation images that are used."""
    epochs: int | None = None
    """Epochs of the schedule."""
    steps: int | None = None
    """Training steps of the schedule."""
    teacher: DetectorCost | None = None
    """Cost of the teacher."""
    student: DetectorCost | None = None
    """Cost of the student."""
    flops_convention: str = FLOPS_CONVENTION
    """How FLOPs are counted."""
    seconds_per_step: float | None = None
    """Time of a training step in s, including the reading of images as far as the loader processes are slower than
    training. With several processes, the time of one process without communication."""
    estimated_seconds: float | None = None
    """Time of training and all evaluations in s. Evaluations are counted at the teacher's speed if there is a teacher;
    the student is faster."""
    peak_memory_mb: float | None = None
    """Peak memory of a training step in MiB."""

    @property
    def exit_code(self) -> int:
        """Exit code of the plan command: 0 if no check failed, 1 if one failed, 2 if the spec is invalid."""
        codes = [check.code for check in self.checks if check.level == "error"]
        return 0 if not codes else 2 if InvalidSpec.code in codes else 1
