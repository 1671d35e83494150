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
        setup = TrainingSetup(spec, Path(), emit)
    except FrsError as error:  # no such device, precision or base config
        return Estimate(ok=False, checks=[checks.failed_check(error)])
    found = checks.run_all(setup.preparations(), vars(setup))
    found += checks.run_all(setup.trials(TIMED_STEPS, MAX_TEACHER_IMAGES), vars(setup))
    done = vars(setup)
    student = _side(setup, setup.student) if "student" in done else None
    teacher = _side(setup, setup.teacher.detector) if "teacher" in done else None
    step = _seconds_per_step(setup) if "probed" in done else None
    return Estimate(
        ok=not any(check.level == "error" for check in found),
        checks=found,
        device=versions.device_name(setup.device),
        precision=setup.precision,
        classes=list(setup.data.classes) if "data" in done else None,
        training_images=len(setup.data.labelled) if "data" in done else None,
        validation_images=len(setup.data.val.valid) if "data" in done else None,
        epochs=setup.plan.epochs if "plan" in done else None,
        steps=setup.plan.steps if "plan" in done else None,
        teacher=teacher,
        student=student,
        seconds_per_step=step,
        estimated_seconds=_estimate(setup, step, student) if step and student else None,
        peak_memory_mb=setup.probed.peak_bytes / 2**20 if "probed" in done else None,
    )


def _side(setup: TrainingSetup, detector: nn.Module) -> DetectorCost:
    found = complexity(detector, test_size(setup.job.schedule, setup.base_config))
    return DetectorCost.model_validate(vars(found))


def _seconds_per_step(setup: TrainingSetup) -> float:
    if setup.workers == 0:
        return setup.probed.seconds + setup.loading_seconds
    return max(setup.probed.seconds, setup.loading_seconds / setup.workers)


def _estimate(setup: TrainingSetup, step: float, student: DetectorCost) -> float:
    schedule, plan = setup.job.schedule, setup.plan
    evaluations = 1 + (plan.steps - 1) // (plan.steps_per_epoch * schedule.evaluate_every)
    image = vars(setup).get("seconds_per_image", student.latency_ms / 1000)
    teachers = 1 if setup.spec.teacher else 0
    return plan.steps * step + (evaluations + teachers) * len(setup.data.val.valid) * image
