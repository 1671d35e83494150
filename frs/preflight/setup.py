"""The stages before training: load the data, build the detectors, try one step.

Each stage runs steps, which the step runner turns into checks.
"""

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from mmengine.logging import MessageHub
from torch import nn

from frs.dataset import splits
from frs.dataset.report import describe_background, describe_crowded, describe_validation
from frs.dataset.splits import LoadedSplits
from frs.detector_spec import ConfigDetector
from frs.detectors import loading
from frs.detectors.builder import Description, class_layers
from frs.detectors.unsupported import unsupported_on_error
from frs.distillation.builder import build_distiller, distillation_facts
from frs.distillation.distiller import Distiller
from frs.distillation.student_init import copy_neck_and_head
from frs.distillation.teacher import Teacher
from frs.distillation.teacher_cache import cached_shape
from frs.errors import ClassMismatch, InvalidSpec, TeacherNotCompetent
from frs.facts import RunFacts
from frs.preflight import probe
from frs.preflight.base_config_trial import try_detector
from frs.preflight.complexity import noise_image
from frs.preflight.context import RunContext
from frs.preflight.probe import Probe, ProbeConfig, first_images
from frs.preflight.step_runner import StepResult, StepRunner
from frs.resolved import ResolvedDetector
from frs.schedule_summary import describe_options
from frs.training import acceleration, process_group, schedule, versions
from frs.training.batches import Batch
from frs.training.fake_quantisation import FakeQuantiser
from frs.training.precision import autocast
from frs.training.schedule import ResolvedSchedule

MIN_TEACHER_MAP = 0.01
"""Minimum mAP of a teacher on the validation split; a lower one is no better than chance."""
SHORT_RUN_STEPS = 4
"""Up to this number of training steps, a job's probe skips the memory estimate from batches of one and two images."""
MAX_BATCHES_READ = 32
"""Largest number of batches that are read to find one with boxes for the probe."""


@dataclass(frozen=True)
class Models:
    """The detectors of a training run and its schedule."""

    student: nn.Module
    teacher: Teacher | None
    schedule: ResolvedSchedule
    trained: nn.Module
    """The module to train: the student, or a distiller of student and teacher."""
    quantiser: FakeQuantiser | None = None
    """What rounds the student's tensors in training; None unless the job quantizes."""


@dataclass(frozen=True)
class Measurements:
    """The measurements of the preflight."""

    probe: Probe
    seconds_per_image: float | None
    """Time of the teacher's evaluation per image, in s; None without a teacher."""


def load_inputs(context: RunContext, steps: StepRunner) -> LoadedSplits:
    """Load and check the splits."""
    data = steps.run("classes", _read_data, context)
    steps.run("dataset", _check_data, context, data)
    return data


def build_student(context: RunContext, data: LoadedSplits, steps: StepRunner) -> nn.Module:
    """Build the student with its initial weights."""
    return steps.run("student_weights", _build_student, context, data)


def build_models(context: RunContext, data: LoadedSplits, student: nn.Module, steps: StepRunner) -> Models:
    """Build what `student` is trained with: the schedule and, if the job has a teacher, teacher and distiller."""
    resolved = steps.run("schedule", _resolve_schedule, context, data)
    quantiser = steps.run("quantisation", _attach_quantiser, student) if context.job.kind == "quantize" else None
    if context.spec.teacher is None:
        return Models(student, None, resolved, student, quantiser)
    if context.job.distillation.teacher_cache == "on":
        steps.run("teacher_cache", _check_cache, context, data)
    teacher = steps.run("teacher_weights", _build_teacher, context, data)
    if context.job.distillation.init_from_teacher:
        student = steps.run("init_from_teacher", _init_from_teacher, context, data, student, teacher)
    trained = steps.run("teacher_fits", _build_trained, context, student, teacher, resolved)
    return Models(student, teacher, resolved, trained, quantiser)


def preflight(
    context: RunContext,
    data: LoadedSplits,
    models: Models,
    steps: StepRunner,
    repeats: int = 1,
    teacher_images: int | None = None,
) -> Measurements:
    """Try training and evaluate the teacher.

    `repeats` is the number of training steps, `teacher_images` the number of validation images that the teacher is
    evaluated on (None: all).
    """
    result = steps.run("training_step", _probe, context, data, models.schedule, models.trained, repeats)
    steps.run("gradients", _check_gradients, context, result)
    seconds = None
    if models.teacher is not None:
        seconds = steps.run("teacher_mAP", check_teacher, context, data, models.teacher, images=teacher_images)
    return Measurements(result, seconds)


def _read_data(context: RunContext) -> StepResult[LoadedSplits]:
    """Load the splits. Raise ClassMismatch if their classes differ."""
    context.reporter.phase("checking")
    data = splits.load_splits(context.spec, context.reporter.phase_progress)
    return StepResult(data, f"Both splits have the classes {', '.join(data.classes[:8])}.")


def _check_data(context: RunContext, data: LoadedSplits) -> StepResult[None]:
    """Check the data set's issues against the job's limit. Raise BadDataset if there are too many."""
    warnings = splits.describe_excluded(data, context.job.max_invalid_fraction)
    warnings += describe_crowded(data.val.report, context.job.evaluation.max_detections)
    context.reporter.warn(*warnings)
    training = _describe_training(data) if context.job.trains else []
    sentences = [*training, describe_validation(len(data.val.valid)), *warnings]
    return StepResult(None, " ".join(sentences), warning=bool(warnings))


def _describe_training(data: LoadedSplits) -> list[str]:
    counts = f"{len(data.trained)} images to train on."
    return [counts, *describe_background(len(data.background), data.keep_background)]


def _build_student(context: RunContext, data: LoadedSplits) -> StepResult[nn.Module]:
    context.reporter.phase("loading")
    torch.manual_seed(context.job.schedule.seed)
    source = (context.spec.student, data.classes, context.spec.models, context.job.evaluation.max_detections)
    strict = not context.job.trains
    frozen_stages = context.job.schedule.frozen_stages
    student, excluded = (loading.load_detector(*source), ()) if strict else loading.load_student(*source, frozen_stages)
    context.reporter.facts(_input_facts(context, data, student, excluded))
    if excluded and context.job.kind == "quantize":
        raise ClassMismatch("The student has other classes than the data set.", "Quantize it with its own data set.")
    student = acceleration.to_device(student, context.device)
    _try_base_config(context, student, context.spec.student.description, trains=not strict)
    if not excluded:
        return StepResult(student, f"The student is built: {type(student).__name__}.")
    message = f"The student's weights have other classes: it starts without {', '.join(excluded)}."
    context.reporter.warn(message)
    return StepResult(student, message, warning=True)


def _try_base_config(context: RunContext, detector: nn.Module, description: Description, trains: bool) -> None:
    """Raise UnsupportedDetector if a detector of a base config cannot do what the job needs."""
    if isinstance(description, ConfigDetector):
        distils = context.spec.teacher is not None and context.job.method != "none"
        try_detector(detector, description.config, noise_image(context.test_size), trains, distils)


def _input_facts(context: RunContext, data: LoadedSplits, student: nn.Module, excluded: tuple[str, ...]) -> RunFacts:
    """Return the facts about data, student and machine."""
    unlabelled = data.unlabelled
    return RunFacts(
        classes=data.classes,
        train_annotations_sha256=data.train.sha256,
        val_annotations_sha256=data.val.sha256,
        training_images=len(data.trained),
        max_detections=context.job.evaluation.max_detections,
        unlabelled_images=len(unlabelled.valid) if unlabelled else None,
        unlabelled_annotations_sha256=unlabelled.sha256 if unlabelled else None,
        student_image_size=context.test_size,
        student_parameters=sum(parameter.numel() for parameter in student.parameters()),
        weights_left_out=excluded,
        processes=process_group.world_size(),
        device=versions.device_name(context.device),
        precision=context.precision,
        versions=versions.versions(),
    )


def _resolve_schedule(context: RunContext, data: LoadedSplits) -> StepResult[ResolvedSchedule]:
    """Resolve the schedule to steps."""
    resolved = schedule.resolve_schedule(context.job.schedule, context.base_config, len(data.trained))
    sentences = [f"{resolved.steps} steps, {resolved.steps_per_epoch} an epoch."]
    return StepResult(resolved, " ".join(sentences + describe_options(context.job.schedule)))


def _attach_quantiser(student: nn.Module) -> StepResult[FakeQuantiser]:
    """Let the student compute as its INT8 file will. Raise UnsupportedDetector if it has no neck or dense head."""
    return StepResult(FakeQuantiser(student), "The student trains rounded as its INT8 file will be.")


def _check_cache(context: RunContext, data: LoadedSplits) -> StepResult[None]:
    """Raise InvalidSpec if the teacher's outputs cannot be cached."""
    shape = cached_shape(context.job, data, context.training_size)
    assert shape is not None
    return StepResult(None, f"The teacher's outputs are cached for images of {_format_size(shape)}.")


def _build_teacher(context: RunContext, data: LoadedSplits) -> StepResult[Teacher]:
    """Build the teacher with its weights. Raise ClassMismatch if it lacks classes whose logits are distilled."""
    assert context.spec.teacher is not None
    job = context.job
    detector, classes = loading.load_teacher(
        context.spec.teacher, data.classes, context.spec.models, job.distils_logits, job.evaluation.max_detections
    )
    detector = acceleration.to_device(detector, context.device)
    _try_base_config(context, detector, context.spec.teacher.description, trains=False)
    teacher = Teacher(detector, classes)
    message = f"The teacher is built: {type(detector).__name__}."
    if classes is not None:
        context.reporter.facts(RunFacts(teacher_classes=classes))
        message += f" {classes.describe()}"
    return StepResult(teacher, message)


def _init_from_teacher(
    context: RunContext, data: LoadedSplits, student: nn.Module, teacher: Teacher
) -> StepResult[nn.Module]:
    """Copy the teacher's neck and head into the student where they agree. Raise InitMismatch if nothing does.

    A student with weights of its own for neck and head keeps them. Class layers of a teacher that keeps classes of its
    own are not copied: their rows mean other classes.
    """
    if context.spec.student.weights is not None:
        message = "The student keeps its neck and head: `distillation.init_from_teacher` does not replace trained ones."
        context.reporter.warn(message)
        return StepResult(student, message, warning=True)
    keeps_own_classes = teacher.classes is not None and not teacher.classes.used
    description = context.spec.student.description
    class_keys = class_layers(description, len(data.classes)).keys() if keeps_own_classes else frozenset()
    init = copy_neck_and_head(student, teacher.detector, class_keys)
    context.reporter.facts(RunFacts(teacher_init=init))
    return StepResult(student, init.describe())


def _build_trained(
    context: RunContext, student: nn.Module, teacher: Teacher, resolved: ResolvedSchedule
) -> StepResult[nn.Module]:
    """Build the module to train. Raise StrideMismatch or HeadMismatch if student and teacher do not fit.

    Raises InvalidSpec if no step would distil.
    """
    context.reporter.facts(RunFacts(teacher_sha256=teacher.sha256, method=context.job.method))
    if context.job.method == "none":
        return StepResult(student, "Method `none`: the student trains without distillation.")
    distiller = build_distiller(student, teacher, context.job, resolved)
    context.reporter.facts(distillation_facts(distiller, context.job.distillation))
    message = f"Strides in common: {', '.join(map(str, distiller.strides))}."
    late = _describe_late_distillation(context, distiller, resolved)
    context.reporter.warn(*late)
    trained = acceleration.to_device(distiller, context.device)
    return StepResult(trained, " ".join([message, *late]), warning=bool(late))


def _describe_late_distillation(context: RunContext, distiller: Distiller, resolved: ResolvedSchedule) -> list[str]:
    """Return a warning if the run ends before the terms have their full weight. Raise InvalidSpec if no step distils.

    A run of one or two steps distils in none with the default warm-up, too; it is a trial, and only warned of.
    """
    start = 0 if distiller.calibrated else resolved.calibration_step
    if start and start == resolved.steps - 1 and context.job.schedule.lr_schedule.warmup_steps != "auto":
        raise InvalidSpec(
            f"No step would distil: `auto` weights are calibrated after the learning rate's warm-up of "
            f"{resolved.warmup_steps} steps, and the run has {resolved.steps}.",
            "Lower `schedule.lr_schedule.warmup_steps`, or remove it: `auto` is 5 % of the steps.",
        )
    reached = start + max(1, distiller.schedule.ramp_steps)
    if reached < resolved.steps:
        return []
    return [
        f"Distillation reaches its full weight after {reached} steps; the run has {resolved.steps}. To change that, "
        "lower `distillation.warmup_steps` or `schedule.lr_schedule.warmup_steps`, or remove them."
    ]


def _probe(
    context: RunContext, data: LoadedSplits, resolved: ResolvedSchedule, trained: nn.Module, repeats: int
) -> StepResult[Probe]:
    """Run `repeats` training steps that leave no state behind. Raise BatchTooLarge if the batch does not fit."""
    context.reporter.phase("probing")
    MessageHub.get_current_instance().update_info("epoch", 0)  # TOOD's loss reads it
    batch, loading_seconds = _first_batch(context, data)
    thorough = resolved.steps > SHORT_RUN_STEPS or repeats > 1
    forward_context = partial(autocast, context.precision, context.device.type)
    config = ProbeConfig(forward_context, context.job.schedule, resolved.optimizer, repeats, estimate_memory=thorough)
    with _unsupported_if_a_base_config_fails(context):
        result = replace(probe.probe(trained, batch, config), loading_seconds=loading_seconds)
    per_process = " per process" if context.job.resources.trainers > 1 else ""
    return StepResult(
        result,
        f"A batch of {len(batch['inputs'])} images{per_process} takes {result.seconds:.3g} s "
        f"and {result.peak_bytes / 2**20:.0f} MiB.",
    )


def _unsupported_if_a_base_config_fails(context: RunContext) -> AbstractContextManager[None]:
    """Return the context of a training step: what a base config's student raises is the detector's fault, not ours."""
    student = context.spec.student.description
    if not isinstance(student, ConfigDetector):
        return nullcontext()
    return unsupported_on_error(f"{student.config} fails in a training step on images that are resized and flipped")


def _first_batch(context: RunContext, data: LoadedSplits) -> tuple[Batch, float]:
    """Return one process's share of the first batch in which it has boxes, and the time to read a batch in s.

    A plan measures the share in one process for a job of several. Augmentation may crop all boxes of a batch; then some
    terms have no gradient. If that is so in many batches, the last of them is returned.
    """
    planned_processes = context.job.resources.trainers // process_group.world_size()
    started = time.monotonic()
    for read, batch in enumerate(context.training_loaders(data, workers=0)(0, MAX_BATCHES_READ), start=1):
        share = first_images(batch, -(-len(batch["inputs"]) // planned_processes))
        seconds = (time.monotonic() - started) / read
        if any(len(sample.gt_instances) for sample in share["data_samples"]):
            break
    return share, seconds


def _check_gradients(context: RunContext, result: Probe) -> StepResult[None]:
    """Raise NoGradient if a term of the probe has no gradient."""
    probe.check_gradients(result)
    context.reporter.facts(RunFacts(gradients_at_start=dict(result.gradients)))
    norms = ", ".join(f"{name} {norm:.3g}" for name, norm in result.gradients.items())
    return StepResult(None, f"Gradients reach the student, with norms: {norms}.")


def check_teacher(
    context: RunContext, data: LoadedSplits, teacher: Teacher, images: int | None = None
) -> StepResult[float | None]:
    """Evaluate the teacher on `images` validation images (None: all); the value is the time per image in s.

    A teacher that lacks classes of the data set is not evaluated. Raises TeacherNotCompetent if its mAP is too low,
    unless the spec accepts a weak teacher.
    """
    if teacher.classes and not teacher.classes.used:
        message = f"{teacher.classes.describe()} Its mAP on the validation split is therefore unknown and not checked."
        context.reporter.warn(message)
        return StepResult(None, message, warning=True)
    context.reporter.phase("evaluating the teacher")
    assert context.spec.teacher is not None
    split = data.val if images is None else data.val.sample(images)
    size = context.evaluation_size(context.spec.teacher)
    context.reporter.facts(RunFacts(teacher_image_size=size))
    started = time.monotonic()
    scores, detections = context.evaluate(teacher.detector, split, size)
    seconds_per_image = (time.monotonic() - started) / max(1, scores.images)
    context.reporter.evaluation("teacher", scores, last=True)
    if images is None:
        context.save_detections("teacher", detections, split)
    result = f"The teacher reaches mAP {scores.mAP:.4f} on {scores.images} validation images at {_format_size(size)}"
    if scores.mAP < MIN_TEACHER_MAP:
        hint = _describe_other_size(context.spec.teacher, size)
        if not context.job.distillation.accept_weak_teacher:
            raise TeacherNotCompetent(
                f"{result}, below {MIN_TEACHER_MAP}.", f"{hint} {TeacherNotCompetent.hint_by_default}".strip()
            )
        message = f"{result}, below {MIN_TEACHER_MAP}. Accepted because of `distillation.accept_weak_teacher`. {hint}"
    elif size != context.test_size:
        message = (
            f"{result}, at which it was trained, but this job trains at {_format_size(context.test_size)}. "
            f"To train at the teacher's size, set `schedule.image_size: [{size[0]}, {size[1]}]`."
        )
    else:
        return StepResult(seconds_per_image, f"{result}.")
    context.reporter.warn(message.strip())
    return StepResult(seconds_per_image, message.strip(), warning=True)


def _describe_other_size(teacher: ResolvedDetector, size: tuple[int, int]) -> str:
    """Return a hint if the teacher was not trained at `size`, or if that is unknown; else nothing."""
    trained_size = loading.trained_size(teacher)
    if teacher.weights is None or trained_size == size:
        return ""
    if trained_size is None:
        return f"If it was not trained at {_format_size(size)}, set `schedule.image_size` to its size."
    width, height = trained_size
    return f"It was trained at {_format_size(trained_size)}: set `schedule.image_size: [{width}, {height}]`."


def _format_size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
