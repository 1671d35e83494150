"""How many steps a schedule is. Importable without torch and without the base configs."""

import math
from dataclasses import dataclass

from frs.spec import DescribedDetector, DetectorRef, Schedule

DESCRIBED_EPOCHS = 12
"""Of the base configs behind described detectors."""


@dataclass(frozen=True)
class StepCounts:
    epochs: int
    steps: int
    per_epoch: int


def count_steps(schedule: Schedule, epochs: int, images: int) -> StepCounts:
    """Of `epochs` over so many images, ended by `schedule.max_steps`."""
    per_epoch = math.ceil(images / schedule.batch_size)
    steps = min(epochs * per_epoch, schedule.max_steps or epochs * per_epoch)
    return StepCounts(math.ceil(steps / per_epoch), steps, per_epoch)


def known_epochs(schedule: Schedule, student: DetectorRef) -> int | None:
    """Epochs asked for, before `max_steps`; None where only the student's base config knows them."""
    return schedule.epochs or (DESCRIBED_EPOCHS if isinstance(student, DescribedDetector) else None)
