"""The setup of a job in steps: load the data, build the detectors, resolve the schedule, try one step."""

import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from frs.dataset import splits
from frs.dataset.splits import LoadedSplit, LoadedSplits
from frs.detectors import builder, loading, weights
from frs.distillation.builder import build_distiller, distillation_facts
from frs.distillation.teacher import Teacher
from frs.errors import TeacherNotCompetent
from frs.evaluation.coco_scores import Scores, detect, score
from frs.evaluation.detections import Detections, Rows, pack
from frs.events import Emit, Role
from frs.preflight.probe import Probe, ProbeConfig, check_gradients, first_images, probe
from frs.preflight.step_runner import SetupStep, StepResult
from frs.resolved import ResolvedSpec
from frs.training import acceleration, precision, process_group, schedule, versions
from frs.training.batches import (
    Batch,
    DetectionImages,
    Pipeline,
    TrainingLoaders,
    test_loader,
    test_pipeline,
    training_pipeline,
)
from frs.training.devices import choose_device, loader_workers
from frs.training.event_reporter import EventReporter
from frs.training.precision import autocast
from frs.training.schedule import ResolvedSchedule

MIN_TEACHER_MAP = 0.01
"""Minimum mAP of a teacher on the validation split; a lower one is no better than chance."""
SHORT_RUN_STEPS = 4
"""Up to this number of training steps, a job's probe skips the memory estimate from batches of one and two images."""


class TrainingSetup:
    """Data, detectors and schedule of a job.

    The steps of `setup_steps` and `trial_steps` set the attributes annotated below; a step's `needs` lists the ones
    that it reads.
    """

    data: LoadedSplits
    student: nn.Module
    resolved_schedule: ResolvedSchedule
    teacher: Teacher
    model: nn.Module
    """The module to train: the student, or a distiller of student and teacher."""
    probe_result: Probe
    loading_seconds: float
    """Time to read the images of one batch in one process, in s."""
    teacher_sha256: str = ""
    """Fingerprint of the teacher's weights."""
    seconds_per_image: float
    """Time of the teacher's evaluation per image, in s."""
    detections: Rows
    """Detections of the last evaluation."""

    def __init__(self, spec: ResolvedSpec, workdir: Path, emit: Emit) -> None:
        self.spec, self.job, self.workdir = spec, spec.job, workdir
        self.reporter = EventReporter(emit, workdir)
        self.device = choose_device(self.job.resources)
        self.precision = precision.choose_precision(self.job.schedule.precision, self.device)
        self.base_config = builder.load_base_config(spec.student.description)
        self.workers = loader_workers(self.job.resources, self.device)

    def setup_steps(self) -> list[SetupStep]:
        """Return the steps of every attempt, which load and check the parts of the job."""
        steps = [
            SetupStep("class_mismatch", self.read_data),
            SetupStep("bad_dataset", self.check_data, ("data",)),
            SetupStep("student_weights", self.build_student, ("data",)),
        ]
        if self.job.kind != "evaluate":
            steps.append(SetupStep("schedule", self.resolve_schedule, ("data",)))
        if self.spec.teacher is not None:
            steps.append(SetupStep("teacher_weights_mismatch", self.build_teacher, ("data",)))
            steps.append(SetupStep("teacher_fits", self.build_model, ("student", "teacher", "resolved_schedule")))
        return steps

    def trial_steps(self, repeats: int = 1, teacher_images: int | None = None) -> list[SetupStep]:
        """Return the steps of the first attempt, which try training and the teacher.

        `repeats` is the number of training steps, `teacher_images` the number of validation images that the teacher is
        evaluated on (None: all).
        """
        if self.job.kind == "evaluate":
            return []
        steps = [
            SetupStep("batch_too_large", partial(self.probe, repeats), ("model",)),
            SetupStep("no_gradient", self.check_gradients, ("probe_result",)),
        ]
        if self.spec.teacher is not None:
            steps.append(SetupStep("teacher_not_competent", partial(self.check_teacher, teacher_images), ("teacher",)))
        return steps

    def read_data(self) -> StepResult:
        """Load the splits. Raise ClassMismatch if their classes differ."""
        self.reporter.phase("checking")
        self.data = splits.load_splits(self.spec, self.reporter.phase_progress)
        return StepResult(f"Both splits have the classes {', '.join(self.data.classes[:8])}.")

    def check_data(self) -> StepResult:
        """Check the data set's issues against the job's limit. Raise BadDataset if there are too many."""
        excluded = splits.describe_excluded(self.data, self.job.max_invalid_fraction)
        self.reporter.warn(*excluded)
        counts = f"{len(self.data.train.valid)} images to train on, {len(self.data.val.valid)} to validate on."
        return StepResult(" ".join([counts, *excluded]), warning=bool(excluded))

    def build_student(self) -> StepResult:
        """Build the student with its initial weights."""
        self.reporter.phase("loading")
        torch.manual_seed(self.job.schedule.seed)
        source = (self.spec.student, self.data.classes, self.spec.models)
        strict = self.job.kind == "evaluate"
        student, excluded = (loading.load_detector(*source), ()) if strict else loading.load_student(*source)
        self.student = acceleration.to_device(student, self.device)
        if self.spec.teacher is None:
            self.model = self.student
        self.reporter.facts(**self.facts(student), weights_left_out=list(excluded))
        if not excluded:
            return StepResult(f"The student is built: {type(student).__name__}.")
        message = f"The student's weights have other classes: it starts without {', '.join(excluded)}."
        self.reporter.warn(message)
        return StepResult(message, warning=True)

    def resolve_schedule(self) -> StepResult:
        """Resolve the schedule to steps."""
        self.resolved_schedule = schedule.resolve_schedule(self.job.schedule, self.base_config, len(self.data.labelled))
        return StepResult(f"{self.resolved_schedule.steps} steps, {self.resolved_schedule.steps_per_epoch} an epoch.")

    def build_teacher(self) -> StepResult:
        """Build the teacher with its weights."""
        assert self.spec.teacher is not None
        detector = loading.load_detector(self.spec.teacher, self.data.classes, self.spec.models)
        self.teacher = Teacher(acceleration.to_device(detector, self.device))
        return StepResult(f"The teacher is built: {type(detector).__name__}.")

    def build_model(self) -> StepResult:
        """Build the model to train. Raise StrideMismatch or HeadMismatch if student and teacher do not fit."""
        self.teacher_sha256 = self.teacher.fingerprint()
        self.reporter.facts(teacher_sha256=self.teacher_sha256, method=self.job.method)
        if self.job.method == "none":
            self.model = self.student
            return StepResult("Method `none`: the student trains without distillation.")
        model = build_distiller(self.student, self.teacher, self.job, self.resolved_schedule)
        self.model = acceleration.to_device(model, self.device)
        self.reporter.facts(**distillation_facts(model, self.job.distillation))
        return StepResult(f"Strides in common: {', '.join(map(str, model.strides))}.")

    def probe(self, repeats: int) -> StepResult:
        """Run `repeats` training steps that leave no state behind. Raise BatchTooLarge if the batch does not fit."""
        self.reporter.phase("probing")
        started = time.monotonic()
        batch = self.first_batch()
        self.loading_seconds = time.monotonic() - started
        thorough = self.resolved_schedule.steps > SHORT_RUN_STEPS or repeats > 1
        states = schedule.OPTIMIZER_STATE_TENSORS[self.job.schedule.optimizer.name]
        context = partial(autocast, self.precision, self.device.type)
        self.probe_result = probe(self.model, batch, ProbeConfig(context, states, repeats, estimate_memory=thorough))
        per_process = " per process" if self.job.resources.trainers > 1 else ""
        return StepResult(
            f"A step on {len(batch['inputs'])} images{per_process} takes {self.probe_result.seconds:.3g} s "
            f"and {self.probe_result.peak_bytes / 2**20:.0f} MiB."
        )

    def first_batch(self) -> Batch:
        """Return one process's share of the first batch; a plan measures it in one process for a job of several."""
        batch = next(iter(self.training_loaders(workers=0)(0, 1)))
        planned_processes = self.job.resources.trainers // process_group.world_size()
        return first_images(batch, -(-len(batch["inputs"]) // planned_processes))

    def check_gradients(self) -> StepResult:
        """Raise NoGradient if a term of the probe has no gradient."""
        check_gradients(self.probe_result)
        self.reporter.facts(gradients_at_start=self.probe_result.gradients)
        norms = ", ".join(f"{name} {norm:.3g}" for name, norm in self.probe_result.gradients.items())
        return StepResult(f"Gradients reach the student, with norms: {norms}.")

    def check_teacher(self, images: int | None = None) -> StepResult:
        """Evaluate the teacher on `images` validation images (None: all).

        Raises TeacherNotCompetent if its mAP is too low, unless the spec accepts a weak teacher.
        """
        self.reporter.phase("evaluating the teacher")
        split = self.data.val if images is None else self.data.val.sample(images)
        started = time.monotonic()
        scores = self.evaluate(self.teacher.detector, split)
        self.seconds_per_image = (time.monotonic() - started) / max(1, scores.images)
        self.reporter.evaluation("teacher", scores, last=True)
        if images is None:
            self.save_detections("teacher")
        result = f"The teacher reaches mAP {scores.mAP:.4f} on {scores.images} validation images"
        if scores.mAP >= MIN_TEACHER_MAP:
            return StepResult(f"{result}.")
        if not self.job.distillation.accept_weak_teacher:
            raise TeacherNotCompetent(f"{result}, below {MIN_TEACHER_MAP}.")
        message = f"{result}, below {MIN_TEACHER_MAP}. Accepted because of `distillation.accept_weak_teacher`."
        self.reporter.warn(message)
        return StepResult(message, warning=True)

    def evaluate(self, detector: nn.Module, split: LoadedSplit | None = None) -> Scores:
        """Return the detector's COCO metrics on `split` (None: the validation split) and keep its detections."""
        split = split or self.data.val
        process_group.broadcast_from_rank0(detector.buffers())
        images = self.image_dataset(
            split, process_group.shard(split.valid), test_pipeline(self.job.schedule, self.base_config)
        )
        rows = detect(detector, test_loader(images, self.workers), self.reporter.phase_progress)
        self.detections = process_group.all_gather_rows(rows)
        return score(self.detections, split.coco, split.ids)

    def save_detections(self, role: Role) -> None:
        """Write the detections of the last evaluation, for comparisons of runs image by image."""
        if process_group.rank() != 0:
            return
        split = self.data.val
        content = pack(Detections(self.detections, np.array(sorted(split.ids)), self.data.classes, split.sha256))
        name = f"detections-{role}.npz"
        self.reporter.artifact(name, weights.write_bytes(content, self.workdir / name))

    def training_loaders(self, workers: int) -> TrainingLoaders:
        """Return the loaders of training batches, including the unlabelled images if there are any."""
        pipeline = training_pipeline(self.job.schedule, self.base_config)
        images = self.image_dataset(self.data.train, self.data.labelled, pipeline)
        split = self.data.unlabelled
        unlabelled = self.image_dataset(split, split.valid, pipeline) if split else None
        return TrainingLoaders(images, self.job.schedule, workers, unlabelled)

    def image_dataset(self, split: LoadedSplit, indices: list[int], pipeline: Pipeline) -> DetectionImages:
        """Return the split's images at `indices`, processed by `pipeline`."""
        return DetectionImages(split.coco, split.files.images, pipeline, self.job.schedule.seed, indices)

    def facts(self, student: nn.Module) -> dict[str, object]:
        """Return the facts about data, student and machine for the report."""
        unlabelled: dict[str, object] = {}
        if split := self.data.unlabelled:
            unlabelled = {"unlabelled_images": len(split.valid), "unlabelled_annotations_sha256": split.sha256}
        return {
            "classes": list(self.data.classes),
            "train_annotations_sha256": self.data.train.sha256,
            "val_annotations_sha256": self.data.val.sha256,
            "training_images": len(self.data.labelled),
            **unlabelled,
            "student_parameters": sum(parameter.numel() for parameter in student.parameters()),
            "processes": process_group.world_size(),
            "device": versions.device_name(self.device),
            "precision": self.precision,
            "versions": versions.versions(),
        }
