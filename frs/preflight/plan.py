"""What a job would be, found out before it spends: every check, both detectors' weight, time and memory."""

from pathlib import Path

from torch import nn

from frs import events
from frs.errors import FrsError
from frs.preflight import checks
from frs.preflight.complexity import complexity
from frs.preflight.estimate import DetectorCost, Estimate
from frs.preflight.setup import TrainingSetup
from frs.resolved import ResolvedSpec
from frs.training import versions
from frs.training.batches import test_size

MAX_TEACHER_IMAGES = 200
"""Validation images that the teacher is measured on, evenly from all of them; a job measures it on all."""
TIMED_STEPS = 4
"""The first warms up."""


def estimate(spec: ResolvedSpec, emit: events.Emit) -> Estimate:
    """Runs every check that can run, takes a few steps, and writes nothing."""
    try:
        made = TrainingSetup(spec, Path(), emit)
    except FrsError as error:  # no such device, precision or stock config
        return Estimate(ok=False, checks=[checks.failed_check(error)])
    found = checks.run_all(made.preparations(), vars(made))
    found += checks.run_all(made.trials(TIMED_STEPS, MAX_TEACHER_IMAGES), vars(made))
    done = vars(made)
    student = _side(made, made.student) if "student" in done else None
    teacher = _side(made, made.teacher.detector) if "teacher" in done else None
    step = _seconds_per_step(made) if "probed" in done else None
    return Estimate(
        ok=not any(check.level == "error" for check in found),
        checks=found,
        device=versions.device_name(made.device),
        precision=made.precision,
        classes=list(made.data.classes) if "data" in done else None,
        training_images=len(made.data.trainable) if "data" in done else None,
        validation_images=len(made.data.val.kept) if "data" in done else None,
        epochs=made.plan.epochs if "plan" in done else None,
        steps=made.plan.steps if "plan" in done else None,
        teacher=teacher,
        student=student,
        seconds_per_step=step,
        estimated_seconds=_estimate(made, step, student) if step and student else None,
        peak_memory_mb=made.probed.peak_bytes / 2**20 if "probed" in done else None,
    )


def _side(made: TrainingSetup, detector: nn.Module) -> DetectorCost:
    found = complexity(detector, test_size(made.job.schedule, made.stock))
    return DetectorCost.model_validate(vars(found))


def _seconds_per_step(made: TrainingSetup) -> float:
    if made.workers == 0:
        return made.probed.seconds + made.loading_seconds
    return max(made.probed.seconds, made.loading_seconds / made.workers)


def _estimate(made: TrainingSetup, step: float, student: DetectorCost) -> float:
    schedule, plan = made.job.schedule, made.plan
    evaluations = 1 + (plan.steps - 1) // (plan.steps_per_epoch * schedule.evaluate_every)
    image = vars(made).get("seconds_per_image", student.latency_ms / 1000)
    teachers = 1 if made.spec.teacher else 0
    return plan.steps * step + (evaluations + teachers) * len(made.data.val.kept) * image
