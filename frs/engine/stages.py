"""Runs one resolved spec in this process, start to end, telling everything as events."""

import hashlib
import uuid
from pathlib import Path
from typing import Any

from mmengine.runner import Runner

from frs import events
from frs.comparison import compare
from frs.comparison.pictures import richness
from frs.dataset.trainable import labelled_images
from frs.detectors import builder, weights
from frs.distillation.distiller import Distiller
from frs.distillation.teacher_cache import TeacherCache, cache_for
from frs.engine.checkpoints import Checkpoints
from frs.engine.hooks import TrainingHook
from frs.engine.loop import StepLoop
from frs.engine.student_files import StudentWriter
from frs.errors import BadTeacher
from frs.files import digest
from frs.preflight.checks import run_until_first_error
from frs.preflight.complexity import complexity
from frs.preflight.estimate import FLOPS_CONVENTION
from frs.preflight.setup import TrainingSetup
from frs.resolved import ResolvedSpec
from frs.training import acceleration, process_group, schedule, versions
from frs.training.batches import test_loader, test_pipeline, test_size, training_pipeline
from frs.training.precision import AutocastOptimWrapper
from frs.training.stop_request import StopRequest

IDENTITY = ("kind", "method", "unlabelled", "teacher", "student", "schedule", "distillation")
"""Fields of a spec that a checkpoint depends on."""
RICHNESS_IMAGES = 4


def run(spec: ResolvedSpec, workdir: Path, emit: events.Emit, stop: StopRequest) -> str:
    """Trains, evaluates or compares, goes on from the newest checkpoint in `workdir`, and returns the end reason.

    Raises FrsError with a code for whatever can be expected to fail, Interrupted when `stop` was asked for.
    """
    if spec.run_group is not None:
        return compare.run(spec, spec.run_group, workdir, emit, stop)
    setup = TrainingSetup(spec, workdir, emit)
    run_until_first_error(setup.preparations())
    if spec.job.kind == "evaluate":
        return evaluate(setup)
    return train(setup, stop)


def evaluate(setup: TrainingSetup) -> str:
    setup.reporter.phase("evaluating")
    setup.reporter.evaluation("student", setup.evaluate(setup.student), last=True)
    setup.keep_detections("student")
    report_complexity(setup)
    return "completed"


def train(setup: TrainingSetup, stop: StopRequest) -> str:
    checkpoints = Checkpoints(setup.workdir / "checkpoints", checkpoint_identity(setup))
    if checkpoints.newest() is None:
        run_until_first_error(setup.trials())
    cache = build_cache(setup)
    exporter = build_writer(setup)
    bridge = TrainingHook(
        plan=setup.plan,
        schedule=setup.job.schedule,
        reporter=setup.reporter,
        stop=stop,
        checkpoints=checkpoints,
        evaluate=setup.evaluate,
        save_student=exporter.weights,
    )
    runner = build_runner(setup, bridge)
    runner.train()
    if setup.spec.teacher and setup.teacher.fingerprint() != setup.teacher_sha256:
        raise BadTeacher("The teacher's weights changed during training.", "This is a fault of ours: please report it.")
    if cache is not None:
        cache.remove()
    if process_group.rank() == 0:
        deliver(setup, exporter)
    return (bridge.ended_by if runner.iter < setup.plan.steps else None) or "completed"


def build_cache(setup: TrainingSetup) -> TeacherCache | None:
    if not isinstance(setup.model, Distiller):
        return None
    pipeline = training_pipeline(setup.job.schedule, setup.base_config)
    size = next((step["scale"] for step in pipeline if step["type"] == "Resize"), None)
    cache = setup.model.cache = cache_for(
        setup.teacher, setup.job, setup.data, setup.plan, size, setup.workdir, setup.precision
    )
    setup.reporter.facts(teacher_cache=cache is not None)
    return cache


class QuietRunner(Runner):
    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        """Nothing: it would look for compilers, complain where there are none, and log at a level nobody reads."""


def build_runner(setup: TrainingSetup, bridge: TrainingHook) -> Runner:
    asked, clip = setup.job.schedule, setup.job.schedule.max_grad_norm
    optimizer = schedule.optimizer_config(asked, setup.plan) | acceleration.optimizer_options(setup.device)
    return QuietRunner(
        model=setup.model,
        work_dir=str(setup.workdir / "mmengine"),
        experiment_name=uuid.uuid4().hex,
        train_dataloader=setup.loaders(setup.workers),
        train_cfg={"type": StepLoop, "plan": setup.plan},
        optim_wrapper={
            "type": AutocastOptimWrapper,
            "precision": setup.precision,
            "device_type": setup.device.type,
            "optimizer": optimizer,
            "clip_grad": {"max_norm": clip} if clip else None,
            "paramwise_cfg": setup.base_config.optim_wrapper.get("paramwise_cfg"),
        },
        param_scheduler=schedule.scheduler_configs(asked, setup.plan),
        default_hooks=dict.fromkeys(("runtime_info", "timer", "sampler_seed", "logger", "checkpoint")),
        custom_hooks=[bridge],
        visualizer={"type": "Visualizer", "name": uuid.uuid4().hex},
        randomness={"seed": asked.seed, "diff_rank_seed": True},
        log_level="ERROR",
        default_scope="mmdet",
    )


def build_writer(setup: TrainingSetup) -> StudentWriter:
    model = builder.model_config(setup.spec.student.description, len(setup.data.classes))
    name = setup.job.name or type(setup.student).__name__.lower()
    pipeline = test_pipeline(setup.job.schedule, setup.base_config)
    return StudentWriter(setup.workdir / "student", name, model, setup.data.classes, pipeline)


def deliver(setup: TrainingSetup, exporter: StudentWriter) -> None:
    """Everything a run leaves beside its checkpoints: the last student's safetensors_copy and config, beside its weights, and more."""
    setup.reporter.phase("exporting")
    setup.keep_detections("student")
    file = exporter.weights(setup.student)
    for name, written in [
        ("student.safetensors", exporter.safetensors_copy(setup.student, file)),
        ("student-config.py", exporter.config(file, setup.data.val.files)),
    ]:
        setup.reporter.artifact(name, written)
    setup.reporter.facts(student_sha256=file.sha256)
    if setup.spec.teacher:
        draw_richness(setup)
    report_complexity(setup)


def draw_richness(setup: TrainingSetup) -> None:
    """Where the teacher saw something, on a few validation images; a picture that fails is not worth a run."""
    indices = labelled_images(setup.data.val.coco, setup.data.val.excluded)[:RICHNESS_IMAGES]
    images = setup.images(setup.data.val, indices, test_pipeline(setup.job.schedule, setup.base_config))
    try:
        content = richness.draw(setup.teacher, test_loader(images, setup.workers))
    except Exception as error:
        setup.reporter.log(f"The richness could not be drawn: {type(error).__name__}: {error}.", "warning")
        return
    setup.reporter.artifact("richness.png", weights.write_bytes(content, setup.workdir / "richness.png"))


def report_complexity(setup: TrainingSetup) -> None:
    sides = {"student": setup.student} | ({"teacher": setup.teacher.detector} if setup.spec.teacher else {})
    size = test_size(setup.job.schedule, setup.base_config)
    for role, detector in sides.items():
        setup.reporter.facts(**complexity(detector, size).facts(role))
    device = versions.device_name(setup.device)
    setup.reporter.facts(latency_device=device, flops_convention=FLOPS_CONVENTION)


def checkpoint_identity(setup: TrainingSetup) -> str:
    """What a checkpoint must agree with to be gone on from."""
    asked = setup.job.model_dump_json(include=set(IDENTITY))
    splits = [split for split in (setup.data.train, setup.data.unlabelled) if split]
    read = [d for d in (setup.spec.teacher, setup.spec.student) if d and d.weights]
    digests = [d.sha256 or digest(d.weights) for d in read if d.weights]
    images = [f"{split.sha256} without {sorted(split.excluded)}" for split in splits]
    return hashlib.sha256("\n".join([asked, *images, *digests]).encode()).hexdigest()
