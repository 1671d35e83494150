"""The training of a run: mmengine's Runner with this package's loop and hooks."""

import uuid
from dataclasses import dataclass
from typing import Any

import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

from mmdet.models.layers import ExpMomentumEMA
from mmengine.hooks import Hook
from mmengine.model import BaseAveragedModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from frs.dataset.splits import LoadedSplits
from frs.distillation.distiller import Distiller
from frs.distillation.teacher_cache import TeacherCache, open_teacher_cache
from frs.engine.checkpoints import Checkpoints
from frs.engine.delivery import build_writer
from frs.engine.hooks import (
    AverageHook,
    CalibrationHook,
    CheckpointHook,
    EvaluationHook,
    MetricsHook,
    PatienceHook,
    ResumeHook,
    StopHook,
    WeightAdjustmentHook,
)
from frs.engine.loop import StepLoop
from frs.engine.quantisation_hook import QuantisationHook
from frs.errors import BadTeacher
from frs.evaluation.detections import Rows
from frs.export.names import calibration_images
from frs.facts import RunFacts
from frs.preflight.context import RunContext
from frs.preflight.setup import Models
from frs.schedule_spec import Schedule
from frs.spec import ExportSettings
from frs.training import acceleration, schedule
from frs.training.precision import AutocastOptimWrapper
from frs.training.stop_request import StopRequest


@dataclass(frozen=True)
class TrainingResult:
    """The result of training."""

    student: nn.Module
    """The student to deliver: the trained one, or the moving average of its weights."""
    detections: Rows
    """The student's detections in the final evaluation."""
    end_reason: str


def train(
    context: RunContext, data: LoadedSplits, models: Models, checkpoints: Checkpoints, stop: StopRequest
) -> TrainingResult:
    """Train the student and save its best and last weights.

    Raises BadTeacher if the teacher's weights changed during training.
    """
    cache = build_cache(context, data, models)
    reporter, job_schedule = context.reporter, context.job.schedule
    save_student = build_writer(context, data, models.student).weights
    evaluation = EvaluationHook(
        job_schedule.evaluate_every, lambda student: context.evaluate(student, data.val), save_student, reporter
    )
    hooks: list[Hook] = [
        MetricsHook(job_schedule.images_per_step, reporter),
        ResumeHook(checkpoints, reporter),
        StopHook(stop, context.job.resources.max_minutes),
        CheckpointHook(job_schedule.checkpoint_every, checkpoints, reporter),
        evaluation,
    ]
    if isinstance(models.trained, Distiller):
        hooks.append(CalibrationHook(context.job.distillation.recalibrate, reporter))
        if context.job.distillation.weight_schedule == "adaptive":
            hooks.append(WeightAdjustmentHook(reporter))
    if job_schedule.patience is not None:
        hooks.append(PatienceHook(job_schedule.patience, reporter))
    if models.quantiser is not None:
        hooks.append(QuantisationHook(models.quantiser, lambda: _range_images(context, data), reporter))
    average = build_average(models.student, job_schedule)
    if average is not None:
        hooks.append(AverageHook(average, models.student))
    runner = build_runner(context, data, models, hooks)
    runner.train()
    detections = evaluation.evaluate(runner, last=True)
    if models.teacher and models.teacher.fingerprint() != models.teacher.sha256:
        raise BadTeacher("The teacher's weights changed during training.", "This is a bug in FRS: please report it.")
    if cache is not None:
        cache.remove()
    ended_by = runner.train_loop.ended_by if runner.iter < models.schedule.steps else None
    return TrainingResult(runner.train_loop.student, detections, ended_by or "completed")


def _range_images(context: RunContext, data: LoadedSplits) -> DataLoader[Any]:
    """Return the loader of the training images that an export measures the ranges on by default."""
    by_path = {data.train.files.images / data.train.coco.images[i].file_name: i for i in data.train.valid}
    images = calibration_images(by_path, ExportSettings().calibration_images)
    return context.test_loader(data.train, [by_path[path] for path in images])


def build_cache(context: RunContext, data: LoadedSplits, models: Models) -> TeacherCache | None:
    """Attach the teacher cache to the distiller and return it; None if the model has no teacher or the cache is off."""
    if not isinstance(models.trained, Distiller):
        return None
    cache = models.trained.cache = open_teacher_cache(
        models.trained.teacher,
        context.job,
        data,
        models.schedule,
        context.training_size,
        context.workdir,
        context.precision,
    )
    context.reporter.facts(RunFacts(teacher_cache=cache is not None))
    return cache


class QuietRunner(Runner):
    """mmengine's Runner without its log of the environment."""

    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        """Do nothing. mmengine would search for compilers, warn if there are none, and log at a level that is off."""


def build_average(student: nn.Module, job_schedule: Schedule) -> BaseAveragedModel | None:
    """Return the moving average of the student's weights, and of its buffers as in RTMDet; None without `ema`.

    The decay rises from 0 over as many steps as the average covers, at most mmdet's default of 2,000.
    """
    if job_schedule.ema is None:
        return None
    rise = min(2000, job_schedule.averaged_steps)
    return ExpMomentumEMA(student, momentum=1 - job_schedule.ema, gamma=rise, update_buffers=True)


def build_runner(context: RunContext, data: LoadedSplits, models: Models, hooks: list[Hook]) -> Runner:
    """Return mmengine's Runner for the job."""
    job_schedule, max_grad_norm = context.job.schedule, context.job.schedule.max_grad_norm
    optimizer = schedule.optimizer_config(job_schedule, models.schedule)
    return QuietRunner(
        model=models.trained,
        work_dir=str(context.workdir / "mmengine"),
        experiment_name=uuid.uuid4().hex,
        train_dataloader=context.training_loaders(data, context.workers),
        train_cfg={"type": StepLoop, "resolved_schedule": models.schedule},
        optim_wrapper={
            "type": AutocastOptimWrapper,
            "accumulative_counts": job_schedule.accumulate,
            "precision": context.precision,
            "device_type": context.device.type,
            "optimizer": optimizer | acceleration.optimizer_options(context.device),
            "clip_grad": {"max_norm": max_grad_norm} if max_grad_norm else None,
            "paramwise_cfg": context.base_config.optim_wrapper.get("paramwise_cfg"),
        },
        param_scheduler=schedule.scheduler_configs(models.schedule),
        default_hooks=dict.fromkeys(("runtime_info", "timer", "sampler_seed", "logger", "checkpoint")),
        custom_hooks=hooks,
        visualizer={"type": "Visualizer", "name": uuid.uuid4().hex},
        randomness={"seed": job_schedule.seed, "diff_rank_seed": True},
        log_level="ERROR",
        default_scope="mmdet",
    )
