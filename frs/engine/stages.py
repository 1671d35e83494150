"""The stages of a run in one process: load inputs, build models, preflight, train, deliver."""

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import frs.detectors._mmdet_init  # noqa: F401 - before mmdet

from mmdet.models.layers import ExpMomentumEMA
from mmengine.hooks import Hook
from mmengine.model import BaseAveragedModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from frs import events
from frs.comparison import compare
from frs.comparison.pictures import richness
from frs.cpu_load import mean_load
from frs.dataset.splits import LoadedSplits
from frs.dataset.trainable import labelled_images
from frs.detectors import builder, weights
from frs.distillation.distiller import Distiller
from frs.distillation.teacher import Teacher
from frs.distillation.teacher_cache import TeacherCache, open_teacher_cache
from frs.engine.checkpoints import Checkpoints
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
from frs.engine.student_files import StudentWriter
from frs.errors import BadTeacher, ExportUnsupported
from frs.evaluation.detections import Rows
from frs.export.names import calibration_images
from frs.export.network import check_exportable
from frs.facts import RunFacts
from frs.files import digest
from frs.preflight.complexity import complexity
from frs.preflight.context import RunContext, open_context
from frs.preflight.estimate import FLOPS_CONVENTION
from frs.preflight.setup import Models, build_models, build_student, load_inputs, preflight
from frs.preflight.step_runner import StepRunner
from frs.resolved import ResolvedSpec
from frs.schedule_spec import Schedule
from frs.spec import ExportSettings
from frs.training import acceleration, process_group, schedule, versions
from frs.training.precision import AutocastOptimWrapper
from frs.training.stop_request import StopRequest

IDENTITY = ("kind", "method", "unlabelled", "teacher", "student", "schedule", "distillation")
"""Fields of a spec that a checkpoint depends on."""
NEWER_FIELDS = {
    "schedule": {"keep_background_images", "accumulate", "ema", "patience", "frozen_stages", "augmentation"},
    "distillation": {
        "feature_ratio",
        "logit_ratio",
        "weight_schedule",
        "recalibrate",
        "mask",
        "distance",
        "init_from_teacher",
    },
    "evaluation": {"max_detections"},
}
"""Fields that a checkpoint depends on only if they are set: they are newer than checkpoints of running jobs."""
RICHNESS_IMAGES = 4


@dataclass(frozen=True)
class TrainingResult:
    """The result of training."""

    student: nn.Module
    """The student to deliver: the trained one, or the moving average of its weights."""
    detections: Rows
    """The student's detections in the final evaluation."""
    end_reason: str


def run(spec: ResolvedSpec, workdir: Path, emit: events.Emit, stop: StopRequest) -> str:
    """Train, evaluate or compare, and return the end reason. Training resumes from the newest checkpoint in `workdir`.

    Raises FrsError after an expected failure, and Interrupted if `stop` was requested.
    """
    if spec.comparison_inputs is not None:
        return compare.run(spec, spec.comparison_inputs, workdir, emit, stop)
    context, steps = open_context(spec, workdir, emit), StepRunner(stop_at_first_error=True)
    data = load_inputs(context, steps)
    student = build_student(context, data, steps)
    if context.job.kind == "evaluate":
        return evaluate(context, data, student)
    if context.job.kind == "export":
        return export(context, data, student, stop)
    if context.job.kind == "quantize":
        check_exportable(student)
    models = build_models(context, data, student, steps)
    checkpoints = Checkpoints(workdir / "checkpoints", checkpoint_identity(context, data))
    if checkpoints.newest() is None:  # the first attempt
        preflight(context, data, models, steps)
    result = train(context, data, models, checkpoints, stop)
    if process_group.rank() == 0:
        deliver(context, data, models, result)
    return result.end_reason


def evaluate(context: RunContext, data: LoadedSplits, student: nn.Module) -> str:
    """Evaluate the student and return the end reason."""
    context.reporter.phase("evaluating")
    width, height = context.test_size
    context.reporter.log(f"Images are scaled into {width} x {height} pixels.")
    scores, detections = context.evaluate(student, data.val)
    context.reporter.evaluation("student", scores, last=True)
    context.save_detections("student", detections, data.val)
    report_complexity(context, student, None)
    return "completed"


def export(context: RunContext, data: LoadedSplits, student: nn.Module, stop: StopRequest) -> str:
    """Write the student as files for a device, and return the end reason. Raise ExportUnsupported."""
    try:
        from frs.export import stage
    except ModuleNotFoundError as error:
        raise ExportUnsupported(
            f"The package {error.name} is not installed.", "Install the extra: pip install 'frs-distill[export]'."
        ) from error
    return stage.run(context, data, student, stop)


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


def checkpoint_identity(context: RunContext, data: LoadedSplits) -> str:
    """Return a hash of the spec fields, annotation files, excluded images and weights that a checkpoint depends on.

    A field that is newer than checkpoints of running jobs counts only if it is set.
    """
    job = context.job
    newer = job.model_dump(include=NEWER_FIELDS, exclude_defaults=True)
    added = [f"{name}={value}" for part in NEWER_FIELDS for name, value in newer.get(part, {}).items()]
    fields = job.model_dump_json(include=set(IDENTITY), exclude=NEWER_FIELDS)
    splits = [split for split in (data.train, data.unlabelled) if split]
    loaded = [d for d in (context.spec.teacher, context.spec.student) if d and d.weights]
    digests = [d.sha256 or digest(d.weights) for d in loaded if d.weights]
    images = [f"{split.sha256} without {sorted(split.excluded)}" for split in splits]
    return hashlib.sha256("\n".join([fields, *images, *digests, *added]).encode()).hexdigest()


def build_cache(context: RunContext, data: LoadedSplits, models: Models) -> TeacherCache | None:
    """Attach the teacher cache to the distiller and return it; None if the model has no teacher or the cache is off."""
    if not isinstance(models.trained, Distiller):
        return None
    size = next((step["scale"] for step in context.training_pipeline if step["type"] == "Resize"), None)
    cache = models.trained.cache = open_teacher_cache(
        models.trained.teacher, context.job, data, models.schedule, size, context.workdir, context.precision
    )
    context.reporter.facts(RunFacts(teacher_cache=cache is not None))
    return cache


def build_writer(context: RunContext, data: LoadedSplits, student: nn.Module) -> StudentWriter:
    """Return the writer of the student's result files."""
    max_detections = context.job.evaluation.max_detections
    frozen_stages = context.job.schedule.frozen_stages
    model = builder.model_config(context.spec.student.description, len(data.classes), max_detections, frozen_stages)
    name = context.job.name or type(student).__name__.lower()
    folder, pipeline = context.workdir / "student", context.test_pipeline
    return StudentWriter(folder, name, model, data.classes, pipeline, max_detections)


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


def deliver(context: RunContext, data: LoadedSplits, models: Models, result: TrainingResult) -> None:
    """Write the results besides the checkpoints.

    They are the final student's detections, weights, safetensors copy and config, the richness picture and the facts.
    """
    context.reporter.phase("exporting")
    context.save_detections("student", result.detections, data.val)
    writer = build_writer(context, data, models.student)
    file = writer.weights(result.student)
    for name, saved in [
        ("student.safetensors", writer.safetensors_copy(result.student, file)),
        ("student-config.py", writer.config(file, data.val.files)),
    ]:
        context.reporter.artifact(name, saved)
    context.reporter.facts(RunFacts(student_sha256=file.sha256))
    if models.teacher:
        emit_richness(context, data, models.teacher)
    report_complexity(context, result.student, models.teacher)


def emit_richness(context: RunContext, data: LoadedSplits, teacher: Teacher) -> None:
    """Emit the teacher's richness on a few validation images. A failure is logged and does not fail the run."""
    indices = labelled_images(data.val.coco, data.val.excluded)[:RICHNESS_IMAGES]
    loader = context.test_loader(data.val, indices)
    try:
        maps = richness.compute(teacher, loader)
        files = {"richness.png": richness.draw(maps), "richness.json": richness.to_json(maps)}
    except Exception as error:
        context.reporter.log(f"The richness could not be drawn: {type(error).__name__}: {error}.", "warning")
        return
    for name, content in files.items():
        context.reporter.artifact(name, weights.write_bytes(content, context.workdir / name))


def report_complexity(context: RunContext, student: nn.Module, teacher: Teacher | None) -> None:
    """Emit parameters, FLOPs and latency of student and teacher as facts."""
    cost = complexity(student, context.test_size)
    loads = [cost.load]
    facts = RunFacts(student_parameters=cost.parameters, student_flops=cost.flops, student_latency_ms=cost.latency_ms)
    context.reporter.facts(facts)
    if teacher is not None:
        cost = complexity(teacher.detector, context.test_size)
        loads.append(cost.load)
        facts = RunFacts(
            teacher_parameters=cost.parameters, teacher_flops=cost.flops, teacher_latency_ms=cost.latency_ms
        )
        context.reporter.facts(facts)
    device = versions.device_name(context.device)
    context.reporter.facts(
        RunFacts(latency_device=device, latency_load=mean_load(loads), flops_convention=FLOPS_CONVENTION)
    )
