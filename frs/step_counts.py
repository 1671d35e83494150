"""The number of training steps of a schedule. This module imports neither torch nor mmdet's base configs."""

import math
from dataclasses import dataclass

from frs.detector_spec import Architecture, DescribedDetector, DetectorRef
from frs.schedule_spec import Schedule

DESCRIBED_EPOCHS = 12
"""Epochs of the base configs of most described detectors."""
LONG_SCHEDULES: dict[Architecture, int] = {"rtmdet": 300, "yolox": 300}
"""Epochs of the base configs of the others."""


@dataclass(frozen=True)
class StepCounts:
    """The length of a training run."""

    epochs: int
    """Epochs, the last of which may be incomplete."""
    steps: int
    """Training steps of the run."""
    per_epoch: int
    """Training steps of a complete epoch."""


def count_steps(schedule: Schedule, base_epochs: int | None, images: int) -> StepCounts | None:
    """Return the length of a run over `images` training images.

    It ends after `schedule.epochs` or `schedule.max_steps`, whichever comes first; with neither, after `base_epochs`.
    None: the spec sets neither, and `base_epochs` is unknown.
    """
    per_epoch = math.ceil(images / schedule.images_per_step)
    epochs = schedule.epochs or (None if schedule.max_steps else base_epochs)
    limits = [epochs * per_epoch if epochs else None, schedule.max_steps]
    steps = min((limit for limit in limits if limit), default=None)
    return None if steps is None else StepCounts(math.ceil(steps / per_epoch), steps, per_epoch)


def described_epochs(student: DetectorRef) -> int | None:
    """Return the epochs of the student's base config; None if only mmdet's config file defines them."""
    if not isinstance(student, DescribedDetector):
        return None
    return LONG_SCHEDULES.get(student.architecture, DESCRIBED_EPOCHS)
