"""The stages of a job in one process: prepare, train or evaluate, write the results."""

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
from frs.distillation.teacher_cache import TeacherCache, open_teacher_cache
from frs.engine.checkpoints import Checkpoints
from frs.engine.hooks import TrainingHook
from frs.engine.loop import StepLoop
from frs.engine.student_files import StudentWriter
from frs.errors import BadTeacher
from frs.files import digest
from frs.preflight.complexity import complexity
from frs.preflight.estimate import FLOPS_CONVENTION
from frs.preflight.setup import TrainingSetup
from frs.preflight.step_runner import run_until_first_error
from frs.resolved import ResolvedSpec
from frs.training import acceleration, process_group, schedule, versions
from frs.training.batches import test_loader, test_pipeline, test_size, training_pipeline
from frs.training.precision import AutocastOptimWrapper
from frs.training.stop_request import StopRequest

IDENTITY = ("kind", "method", "unlabelled", "teacher", "student", "schedule", "distillation")
"""Fields of a spec that a checkpoint depends on."""
RICHNESS_IMAGES = 4


def run(spec: ResolvedSpec, workdir: Path, emit: events.Emit, stop: StopRequest) -> str:
    """Train, evaluate or compare, and return the end reason. Training resumes from the newest checkpoint in `workdir`.

    Raises FrsError after an expected failure, and Interrupted if `stop` was requested.
    """
    if spec.comparison_inputs is not None:
        return compare.run(spec, spec.comparison_inputs, workdir, emit, stop)
    setup = TrainingSetup(spec, workdir, emit)
    run_until_first_error(setup.setup_steps())
    if spec.job.kind == "evaluate":
        return evaluate(setup)
    return train(setup, stop)


def evaluate(setup: TrainingSetup) -> str:
    """Evaluate the student and return the end reason."""
    setup.reporter.phase("evaluating")
    setup.reporter.evaluation("student", setup.evaluate(setup.student), last=True)
    setup.save_detections("student")
    report_complexity(setup)
    return "completed"


def train(setup: TrainingSetup, stop: StopRequest) -> str:
    """Train the model, write the results and return the end reason.

    Raises BadTeacher if the teacher's weights changed during training.
    """
    checkpoints = Checkpoints(setup.workdir / "checkpoints", checkpoint_identity(setup))
    if checkpoints.newest() is None:
        run_until_first_error(setup.trial_steps())
    cache = build_cache(setup)
    writer = build_writer(setup)
    hook = TrainingHook(
        resolved_schedule=setup.resolved_schedule,
        schedule=setup.job.schedule,
        reporter=setup.reporter,
        stop=stop,
        checkpoints=checkpoints,
        evaluate=setup.evaluate,
        save_student=writer.weights,
    )
    runner = build_runner(setup, hook)
    runner.train()
    if setup.spec.teacher and setup.teacher.fingerprint() != setup.teacher_sha256:
        raise BadTeacher("The teacher's weights changed during training.", "This is a bug in FRS: please report it.")
    if cache is not None:
        cache.remove()
    if process_group.rank() == 0:
        write_results(setup, writer)
    return (hook.ended_by if runner.iter < setup.resolved_schedule.steps else None) or "completed"


def checkpoint_identity(setup: TrainingSetup) -> str:
    """Return a hash of the spec fields, annotation files, excluded images and weights that a checkpoint depends on."""
    fields = setup.job.model_dump_json(include=set(IDENTITY))
    splits = [split for split in (setup.data.train, setup.data.unlabelled) if split]
    loaded = [d for d in (setup.spec.teacher, setup.spec.student) if d and d.weights]
    digests = [d.sha256 or digest(d.weights) for d in loaded if d.weights]
    images = [f"{split.sha256} without {sorted(split.excluded)}" for split in splits]
    return hashlib.sha256("\n".join([fields, *images, *digests]).encode()).hexdigest()


def build_cache(setup: TrainingSetup) -> TeacherCache | None:
    """Attach the teacher cache to the distiller and return it; None if the model has no teacher or the cache is off."""
    if not isinstance(setup.model, Distiller):
        return None
    pipeline = training_pipeline(setup.job.schedule, setup.base_config)
    size = next((step["scale"] for step in pipeline if step["type"] == "Resize"), None)
    cache = setup.model.cache = open_teacher_cache(
        setup.teacher, setup.job, setup.data, setup.resolved_schedule, size, setup.workdir, setup.precision
    )
    setup.reporter.facts(teacher_cache=cache is not None)
    return cache


def build_writer(setup: TrainingSetup) -> StudentWriter:
    """Return the writer of the student's result files."""
    model = builder.model_config(setup.spec.student.description, len(setup.data.classes))
    name = setup.job.name or type(setup.student).__name__.lower()
    pipeline = test_pipeline(setup.job.schedule, setup.base_config)
    return StudentWriter(setup.workdir / "student", name, model, setup.data.classes, pipeline)


class QuietRunner(Runner):
    """mmengine's Runner without its log of the environment."""

    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        """Do nothing. mmengine would search for compilers, warn if there are none, and log at a level that is off."""


def build_runner(setup: TrainingSetup, hook: TrainingHook) -> Runner:
    """Return mmengine's Runner for the job, with `hook` as its only custom hook."""
    job_schedule, max_grad_norm = setup.job.schedule, setup.job.schedule.max_grad_norm
    optimizer = schedule.optimizer_config(job_schedule, setup.resolved_schedule) | acceleration.optimizer_options(
        setup.device
    )
    return QuietRunner(
        model=setup.model,
        work_dir=str(setup.workdir / "mmengine"),
        experiment_name=uuid.uuid4().hex,
        train_dataloader=setup.training_loaders(setup.workers),
        train_cfg={"type": StepLoop, "resolved_schedule": setup.resolved_schedule},
        optim_wrapper={
            "type": AutocastOptimWrapper,
            "precision": setup.precision,
            "device_type": setup.device.type,
            "optimizer": optimizer,
            "clip_grad": {"max_norm": max_grad_norm} if max_grad_norm else None,
            "paramwise_cfg": setup.base_config.optim_wrapper.get("paramwise_cfg"),
        },
        param_scheduler=schedule.scheduler_configs(job_schedule, setup.resolved_schedule),
        default_hooks=dict.fromkeys(("runtime_info", "timer", "sampler_seed", "logger", "checkpoint")),
        custom_hooks=[hook],
        visualizer={"type": "Visualizer", "name": uuid.uuid4().hex},
        randomness={"seed": job_schedule.seed, "diff_rank_seed": True},
        log_level="ERROR",
        default_scope="mmdet",
    )


def write_results(setup: TrainingSetup, writer: StudentWriter) -> None:
    """Write the results besides the checkpoints.

    They are the final student's detections, weights, safetensors copy and config, the richness picture and the facts.
    """
    setup.reporter.phase("exporting")
    setup.save_detections("student")
    file = writer.weights(setup.student)
    for name, saved in [
        ("student.safetensors", writer.safetensors_copy(setup.student, file)),
        ("student-config.py", writer.config(file, setup.data.val.files)),
    ]:
        setup.reporter.artifact(name, saved)
    setup.reporter.facts(student_sha256=file.sha256)
    if setup.spec.teacher:
        draw_richness(setup)
    report_complexity(setup)


def draw_richness(setup: TrainingSetup) -> None:
    """Draw the teacher's richness on a few validation images. A failure is logged and does not fail the run."""
    indices = labelled_images(setup.data.val.coco, setup.data.val.excluded)[:RICHNESS_IMAGES]
    images = setup.image_dataset(setup.data.val, indices, test_pipeline(setup.job.schedule, setup.base_config))
    try:
        content = richness.draw(setup.teacher, test_loader(images, setup.workers))
    except Exception as error:
        setup.reporter.log(f"The richness could not be drawn: {type(error).__name__}: {error}.", "warning")
        return
    setup.reporter.artifact("richness.png", weights.write_bytes(content, setup.workdir / "richness.png"))


def report_complexity(setup: TrainingSetup) -> None:
    """Emit parameters, FLOPs and latency of student and teacher as facts."""
    detectors = {"student": setup.student} | ({"teacher": setup.teacher.detector} if setup.spec.teacher else {})
    size = test_size(setup.job.schedule, setup.base_config)
    for role, detector in detectors.items():
        setup.reporter.facts(**complexity(detector, size).facts(role))
    device = versions.device_name(setup.device)
    setup.reporter.facts(latency_device=device, flops_convention=FLOPS_CONVENTION)
