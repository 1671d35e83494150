"""The plan of a job: run every check and measure a few steps, without training."""

import math
from pathlib import Path

from torch import nn

from frs import events
from frs.dataset.splits import LoadedSplits
from frs.engine.stages import prepare
from frs.errors import FrsError
from frs.preflight import setup
from frs.preflight.complexity import complexity
from frs.preflight.context import RunContext, open_context
from frs.preflight.estimate import DetectorCost, Estimate
from frs.preflight.probe import Probe
from frs.preflight.step_runner import StepRunner, failed_check
from frs.resolved import ResolvedSpec
from frs.training import versions
from frs.training.schedule import ResolvedSchedule

MAX_TEACHER_IMAGES = 200
"""Number of validation images, evenly spaced over all, that the teacher is evaluated on; a job evaluates it on all."""
TIMED_STEPS = 4
"""Training steps of the probe; the first is a warm-up and not timed."""


def estimate(spec: ResolvedSpec, emit: events.Emit) -> Estimate:
    """Run all checks that can run, measure a few training steps and return the estimate. Writes no files."""
    try:
        context = open_context(spec, Path(), emit)
    except FrsError as error:  # the device, precision or base config is not available
        return Estimate(ok=False, checks=[failed_check(error)])
    steps = StepRunner(stop_at_first_error=False)
    data = setup.load_inputs(context, steps)
    student = setup.build_student(context, data, steps)
    models = prepare(context, data, student, steps) if spec.job.trains else None
    measured = setup.preflight(context, data, models, steps, TIMED_STEPS, MAX_TEACHER_IMAGES) if models else None
    schedule, teacher = (models.schedule, models.teacher) if models else (None, None)
    student_cost = _detector_cost(context, student) if student else None
    step_seconds = _seconds_per_step(context, data, measured.probe) if measured and measured.probe else None
    estimated_seconds = None
    if measured and schedule and step_seconds and student_cost:
        image_seconds = measured.seconds_per_image or student_cost.latency_ms / 1000
        evaluated_images = _evaluations(context, schedule) * len(data.val.valid)
        estimated_seconds = schedule.steps * step_seconds + evaluated_images * image_seconds
    return Estimate(
        ok=not any(check.level == "error" for check in steps.checks),
        checks=steps.checks,
        device=versions.device_name(context.device),
        precision=context.precision,
        classes=list(data.classes) if data else None,
        training_images=len(data.trained) if data else None,
        validation_images=len(data.val.valid) if data else None,
        epochs=schedule.epochs if schedule else None,
        steps=schedule.steps if schedule else None,
        teacher=_detector_cost(context, teacher.detector) if teacher else None,
        student=student_cost,
        seconds_per_step=step_seconds,
        estimated_seconds=estimated_seconds,
        peak_memory_mb=measured.probe.peak_bytes / 2**20 if measured and measured.probe else None,
    )


def _detector_cost(context: RunContext, detector: nn.Module) -> DetectorCost:
    return DetectorCost.model_validate(vars(complexity(detector, context.test_size)))


def _seconds_per_step(context: RunContext, data: LoadedSplits, probe: Probe) -> float:
    """Return the time of a step of `schedule.accumulate` batches, or of as many as an epoch has."""
    schedule, workers = context.job.schedule, context.workers
    batches = min(schedule.accumulate, math.ceil(len(data.trained) / schedule.batch_size))
    loading = probe.loading_seconds
    return batches * (max(probe.seconds, loading / workers) if workers else probe.seconds + loading)


def _evaluations(context: RunContext, schedule: ResolvedSchedule) -> int:
    """Return how often the validation split is evaluated: the student during and after training, the teacher once."""
    students = 1 + (schedule.steps - 1) // (schedule.steps_per_epoch * context.job.schedule.evaluate_every)
    return students + (1 if context.spec.teacher else 0)
