"""The plan of a job: run every check and measure a few steps, without training."""

from pathlib import Path

from torch import nn

from frs import events
from frs.errors import FrsError
from frs.preflight import step_runner
from frs.preflight.complexity import complexity
from frs.preflight.estimate import DetectorCost, Estimate
from frs.preflight.setup import TrainingSetup
from frs.resolved import ResolvedSpec
from frs.training import versions
from frs.training.batches import test_size

MAX_TEACHER_IMAGES = 200
"""Number of validation images, evenly spaced over all, that the teacher is evaluated on; a job evaluates it on all."""
TIMED_STEPS = 4
"""Training steps of the probe; the first is a warm-up and not timed."""


def estimate(spec: ResolvedSpec, emit: events.Emit) -> Estimate:
    """Run all checks that can run, measure a few training steps and return the estimate. Writes no files."""
    try:
        setup = TrainingSetup(spec, Path(), emit)
    except FrsError as error:  # the device, precision or base config is not available
        return Estimate(ok=False, checks=[step_runner.failed_check(error)])
    results = step_runner.run_all(setup.setup_steps(), vars(setup))
    results += step_runner.run_all(setup.trial_steps(TIMED_STEPS, MAX_TEACHER_IMAGES), vars(setup))
    available = vars(setup)
    student = _detector_cost(setup, setup.student) if "student" in available else None
    teacher = _detector_cost(setup, setup.teacher.detector) if "teacher" in available else None
    step_seconds = _seconds_per_step(setup) if "probe_result" in available else None
    return Estimate(
        ok=not any(check.level == "error" for check in results),
        checks=results,
        device=versions.device_name(setup.device),
        precision=setup.precision,
        classes=list(setup.data.classes) if "data" in available else None,
        training_images=len(setup.data.labelled) if "data" in available else None,
        validation_images=len(setup.data.val.valid) if "data" in available else None,
        epochs=setup.resolved_schedule.epochs if "resolved_schedule" in available else None,
        steps=setup.resolved_schedule.steps if "resolved_schedule" in available else None,
        teacher=teacher,
        student=student,
        seconds_per_step=step_seconds,
        estimated_seconds=_total_seconds(setup, step_seconds, student) if step_seconds and student else None,
        peak_memory_mb=setup.probe_result.peak_bytes / 2**20 if "probe_result" in available else None,
    )


def _detector_cost(setup: TrainingSetup, detector: nn.Module) -> DetectorCost:
    measured = complexity(detector, test_size(setup.job.schedule, setup.base_config))
    return DetectorCost.model_validate(vars(measured))


def _seconds_per_step(setup: TrainingSetup) -> float:
    if setup.workers == 0:
        return setup.probe_result.seconds + setup.loading_seconds
    return max(setup.probe_result.seconds, setup.loading_seconds / setup.workers)


def _total_seconds(setup: TrainingSetup, step_seconds: float, student: DetectorCost) -> float:
    schedule = setup.resolved_schedule
    evaluations = 1 + (schedule.steps - 1) // (schedule.steps_per_epoch * setup.job.schedule.evaluate_every)
    image_seconds = vars(setup).get("seconds_per_image", student.latency_ms / 1000)
    teacher_evaluations = 1 if setup.spec.teacher else 0
    validation_images = len(setup.data.val.valid)
    return schedule.steps * step_seconds + (evaluations + teacher_evaluations) * validation_images * image_seconds
