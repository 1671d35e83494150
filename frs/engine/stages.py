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
    if spec.family is not None:
        return compare.run(spec, spec.family, workdir, emit, stop)
    made = TrainingSetup(spec, workdir, emit)
    run_until_first_error(made.preparations())
    if spec.job.kind == "evaluate":
        return evaluate(made)
    return train(made, stop)


def evaluate(made: TrainingSetup) -> str:
    made.announcer.phase("evaluating")
    made.announcer.evaluation("student", made.evaluate(made.student), last=True)
    made.keep_detections("student")
    report_complexity(made)
    return "completed"


def train(made: TrainingSetup, stop: StopRequest) -> str:
    checkpoints = Checkpoints(made.workdir / "checkpoints", checkpoint_identity(made))
    if checkpoints.newest() is None:
        run_until_first_error(made.trials())
    cache = build_cache(made)
    exporter = build_writer(made)
    bridge = TrainingHook(
        plan=made.plan,
        schedule=made.job.schedule,
        announcer=made.announcer,
        stop=stop,
        checkpoints=checkpoints,
        evaluate=made.evaluate,
        save_student=exporter.weights,
    )
    runner = build_runner(made, bridge)
    runner.train()
    if made.spec.teacher and made.teacher.fingerprint() != made.teacher_sha256:
        raise BadTeacher("The teacher's weights changed during training.", "This is a fault of ours: please report it.")
    if cache is not None:
        cache.remove()
    if process_group.rank() == 0:
        deliver(made, exporter)
    return (bridge.ended_by if runner.iter < made.plan.steps else None) or "completed"


def build_cache(made: TrainingSetup) -> TeacherCache | None:
    if not isinstance(made.model, Distiller):
        return None
    pipeline = training_pipeline(made.job.schedule, made.stock)
    size = next((step["scale"] for step in pipeline if step["type"] == "Resize"), None)
    cache = made.model.cache = cache_for(
        made.teacher, made.job, made.data, made.plan, size, made.workdir, made.precision
    )
    made.announcer.facts(teacher_cache=cache is not None)
    return cache


class QuietRunner(Runner):
    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        """Nothing: it would look for compilers, complain where there are none, and log at a level nobody reads."""


def build_runner(made: TrainingSetup, bridge: TrainingHook) -> Runner:
    asked, clip = made.job.schedule, made.job.schedule.clip_norm
    optimizer = schedule.optimizer_config(asked, made.plan) | acceleration.optimizer_options(made.device)
    return QuietRunner(
        model=made.model,
        work_dir=str(made.workdir / "mmengine"),
        experiment_name=uuid.uuid4().hex,
        train_dataloader=made.loaders(made.workers),
        train_cfg={"type": StepLoop, "plan": made.plan},
        optim_wrapper={
            "type": AutocastOptimWrapper,
            "precision": made.precision,
            "device_type": made.device.type,
            "optimizer": optimizer,
            "clip_grad": {"max_norm": clip} if clip else None,
            "paramwise_cfg": made.stock.optim_wrapper.get("paramwise_cfg"),
        },
        param_scheduler=schedule.scheduler_configs(asked, made.plan),
        default_hooks=dict.fromkeys(("runtime_info", "timer", "sampler_seed", "logger", "checkpoint")),
        custom_hooks=[bridge],
        visualizer={"type": "Visualizer", "name": uuid.uuid4().hex},
        randomness={"seed": asked.seed, "diff_rank_seed": True},
        log_level="ERROR",
        default_scope="mmdet",
    )


def build_writer(made: TrainingSetup) -> StudentWriter:
    model = builder.model_config(made.spec.student.description, len(made.data.classes))
    name = made.job.name or type(made.student).__name__.lower()
    pipeline = test_pipeline(made.job.schedule, made.stock)
    return StudentWriter(made.workdir / "student", name, model, made.data.classes, pipeline)


def deliver(made: TrainingSetup, exporter: StudentWriter) -> None:
    """Everything a run leaves beside its checkpoints: the last student's twin and config, beside its weights, and more."""
    made.announcer.phase("exporting")
    made.keep_detections("student")
    file = exporter.weights(made.student)
    for name, written in [
        ("student.safetensors", exporter.twin(made.student, file)),
        ("student-config.py", exporter.config(file, made.data.val.split)),
    ]:
        made.announcer.artifact(name, written)
    made.announcer.facts(student_sha256=file.sha256)
    if made.spec.teacher:
        draw_richness(made)
    report_complexity(made)


def draw_richness(made: TrainingSetup) -> None:
    """Where the teacher saw something, on a few validation images; a picture that fails is not worth a run."""
    indices = labelled_images(made.data.val.coco, made.data.val.left_out)[:RICHNESS_IMAGES]
    images = made.images(made.data.val, indices, test_pipeline(made.job.schedule, made.stock))
    try:
        content = richness.draw(made.teacher, test_loader(images, made.workers))
    except Exception as error:
        made.announcer.log(f"The richness could not be drawn: {type(error).__name__}: {error}.", "warning")
        return
    made.announcer.artifact("richness.png", weights.write_bytes(content, made.workdir / "richness.png"))


def report_complexity(made: TrainingSetup) -> None:
    sides = {"student": made.student} | ({"teacher": made.teacher.detector} if made.spec.teacher else {})
    size = test_size(made.job.schedule, made.stock)
    for role, detector in sides.items():
        made.announcer.facts(**complexity(detector, size).facts(role))
    device = versions.device_name(made.device)
    made.announcer.facts(latency_device=device, flops_convention=FLOPS_CONVENTION)


def checkpoint_identity(made: TrainingSetup) -> str:
    """What a checkpoint must agree with to be gone on from."""
    asked = made.job.model_dump_json(include=set(IDENTITY))
    halves = [half for half in (made.data.train, made.data.unlabelled) if half]
    read = [d for d in (made.spec.teacher, made.spec.student) if d and d.weights]
    digests = [d.sha256 or digest(d.weights) for d in read if d.weights]
    images = [f"{half.sha256} without {sorted(half.left_out)}" for half in halves]
    return hashlib.sha256("\n".join([asked, *images, *digests]).encode()).hexdigest()
