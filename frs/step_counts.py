"""The number of training steps of a schedule. This module imports neither torch nor mmdet's base configs."""

import math
from dataclasses import dataclass

from frs.spec import DescribedDetector, DetectorRef, Schedule

DESCRIBED_EPOCHS = 12
"""Epochs of the base configs of described detectors."""


@dataclass(frozen=True)
class StepCounts:
    """The length of a training run."""

    epochs: int
    """Epochs, the last of which may be incomplete."""
    steps: int
    """Training steps of the run."""
    per_epoch: int
    """Training steps of a complete epoch."""


def count_steps(schedule: Schedule, epochs: int, images: int) -> StepCounts:
    """Return the length of a run of `epochs` over `images` training images, limited by `schedule.max_steps`."""
    per_epoch = math.ceil(images / schedule.batch_size)
    steps = min(epochs * per_epoch, schedule.max_steps or epochs * per_epoch)
    return StepCounts(math.ceil(steps / per_epoch), steps, per_epoch)


def configured_epochs(schedule: Schedule, student: DetectorRef) -> int | None:
    """Return the epochs before `max_steps` is applied; None if only the student's base config defines them."""
    return schedule.epochs or (DESCRIBED_EPOCHS if isinstance(student, DescribedDetector) else None)
