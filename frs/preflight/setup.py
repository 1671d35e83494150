"""What a job needs before its first step, setup and checked part by part: data, detectors, steps, one trial of each."""

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
from frs.evaluation.detections import Detections, pack
from frs.events import Emit, Role
from frs.preflight.checks import SetupStep, StepResult
from frs.preflight.probe import Probe, ProbeConfig, check_gradients, part, probe
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
"""Below this mAP on the validation split a teacher is no better than chance."""
SHORT_RUN_STEPS = 4
"""A run of so many steps is probed by a single one."""


class TrainingSetup:
    """What the phases of a job share. The attributes named here are setup in `preparations` and `trials`."""

    data: LoadedSplits
    student: nn.Module
    plan: ResolvedSchedule
    teacher: Teacher
    model: nn.Module
    """What is trained: the student, alone or joined to the teacher."""
    probed: Probe
    loading_seconds: float
    """To read the images of one batch, in one process."""
    teacher_sha256: str = ""
    seconds_per_image: float
    """Of an evaluation: the teacher's."""

    def __init__(self, spec: ResolvedSpec, workdir: Path, emit: Emit) -> None:
        self.spec, self.job, self.workdir = spec, spec.job, workdir
        self.reporter = EventReporter(emit, workdir)
        self.device = choose_device(self.job.resources)
        self.precision = precision.choose(self.job.schedule.precision, self.device)
        self.base_config = builder.load_base_config(spec.student.description)
        self.workers = loader_workers(self.job.resources, self.device)

    def preparations(self) -> list[SetupStep]:
        """What every attempt makes, each part checked as it is setup."""
        steps = [
            SetupStep("class_mismatch", self.read_data),
            SetupStep("bad_dataset", self.check_data, ("data",)),
            SetupStep("student_weights", self.build_student, ("data",)),
        ]
        if self.job.kind != "evaluate":
            steps.append(SetupStep("schedule", self.plan_steps, ("data",)))
        if self.spec.teacher is not None:
            steps.append(SetupStep("teacher_weights_mismatch", self.build_teacher, ("data",)))
            steps.append(SetupStep("teacher_fits", self.join, ("student", "teacher", "plan")))
        return steps

    def trials(self, repeats: int = 1, teacher_images: int | None = None) -> list[SetupStep]:
        """What the first attempt tries out before it trains: `repeats` timed steps, the teacher on so many images or all."""
        if self.job.kind == "evaluate":
            return []
        steps = [
            SetupStep("batch_too_large", partial(self.probe, repeats), ("model",)),
            SetupStep("no_gradient", self.check_gradients, ("probed",)),
        ]
        if self.spec.teacher is not None:
            steps.append(SetupStep("teacher_not_competent", partial(self.check_teacher, teacher_images), ("teacher",)))
        return steps

    def read_data(self) -> StepResult:
        self.reporter.phase("checking")
        self.data = splits.load_splits(self.spec, self.reporter.phase_progress)
        return StepResult(f"Both splits have the classes {', '.join(self.data.classes[:8])}.")

    def check_data(self) -> StepResult:
        excluded = splits.describe_excluded(self.data, self.job.max_invalid_fraction)
        self.reporter.warn(*excluded)
        found = f"{len(self.data.train.valid)} images to train on, {len(self.data.val.valid)} to validate on."
        return StepResult(" ".join([found, *excluded]), warning=bool(excluded))

    def build_student(self) -> StepResult:
        self.reporter.phase("loading")
        torch.manual_seed(self.job.schedule.seed)
        wanted = (self.spec.student, self.data.classes, self.spec.models)
        strict = self.job.kind == "evaluate"
        student, excluded = (loading.load_detector(*wanted), ()) if strict else loading.load_student(*wanted)
        self.student = acceleration.to_device(student, self.device)
        if self.spec.teacher is None:
            self.model = self.student
        self.reporter.facts(**self.facts(student), weights_left_out=list(excluded))
        if not excluded:
            return StepResult(f"The student is built: {type(student).__name__}.")
        said = f"The student's weights are of other classes: it starts without {', '.join(excluded)}."
        self.reporter.warn(said)
        return StepResult(said, warning=True)

    def plan_steps(self) -> StepResult:
        self.plan = schedule.resolve_schedule(self.job.schedule, self.base_config, len(self.data.labelled))
        return StepResult(f"{self.plan.steps} steps, {self.plan.steps_per_epoch} an epoch.")

    def build_teacher(self) -> StepResult:
        assert self.spec.teacher is not None
        built = loading.load_detector(self.spec.teacher, self.data.classes, self.spec.models)
        self.teacher = Teacher(acceleration.to_device(built, self.device))
        return StepResult(f"The teacher is built: {type(built).__name__}.")

    def join(self) -> StepResult:
        self.teacher_sha256 = self.teacher.fingerprint()
        self.reporter.facts(teacher_sha256=self.teacher_sha256, method=self.job.method)
        if self.job.method == "none":
            self.model = self.student
            return StepResult("Method `none`: the student trains alone.")
        model = build_distiller(self.student, self.teacher, self.job, self.plan)
        self.model = acceleration.to_device(model, self.device)
        self.reporter.facts(**distillation_facts(model, self.job.distillation))
        return StepResult(f"Strides in common: {', '.join(map(str, model.strides))}.")

    def probe(self, repeats: int) -> StepResult:
        """One training step without a trace, several where `repeats` says so. Raises BatchTooLarge."""
        self.reporter.phase("probing")
        started = time.monotonic()
        batch = self.first_batch()
        self.loading_seconds = time.monotonic() - started
        thorough = self.plan.steps > SHORT_RUN_STEPS or repeats > 1
        states = schedule.OPTIMIZER_STATE_TENSORS[self.job.schedule.optimizer.name]
        precise = partial(autocast, self.precision, self.device.type)
        self.probed = probe(self.model, batch, ProbeConfig(precise, states, repeats, estimate_memory=thorough))
        each = " a process" if self.job.resources.trainers > 1 else ""
        return StepResult(
            f"A step on {len(batch['inputs'])} images{each} takes {self.probed.seconds:.3g} s "
            f"and {self.probed.peak_bytes / 2**20:.0f} MiB."
        )

    def first_batch(self) -> Batch:
        """One process's share of it, also where a single process plans for several."""
        batch = next(iter(self.loaders(workers=0)(0, 1)))
        missing = self.job.resources.trainers // process_group.world_size()
        return part(batch, -(-len(batch["inputs"]) // missing))

    def check_gradients(self) -> StepResult:
        check_gradients(self.probed)
        self.reporter.facts(gradients_at_start=self.probed.gradients)
        told = ", ".join(f"{name} {norm:.3g}" for name, norm in self.probed.gradients.items())
        return StepResult(f"Gradients reach the student, of norm: {told}.")

    def check_teacher(self, images: int | None = None) -> StepResult:
        """Measures the teacher. Raises TeacherNotCompetent unless the spec accepts a weak one."""
        self.reporter.phase("evaluating the teacher")
        split = self.data.val if images is None else self.data.val.sample(images)
        started = time.monotonic()
        scores = self.evaluate(self.teacher.detector, split)
        self.seconds_per_image = (time.monotonic() - started) / max(1, scores.images)
        self.reporter.evaluation("teacher", scores, last=True)
        if images is None:
            self.keep_detections("teacher")
        reached = f"The teacher reaches mAP {scores.mAP:.4f} on {scores.images} validation images"
        if scores.mAP >= MIN_TEACHER_MAP:
            return StepResult(f"{reached}.")
        if not self.job.distillation.accept_weak_teacher:
            raise TeacherNotCompetent(f"{reached}, below {MIN_TEACHER_MAP}.")
        accepted = f"{reached}, below {MIN_TEACHER_MAP}. Accepted because the spec says so."
        self.reporter.warn(accepted)
        return StepResult(accepted, warning=True)

    def evaluate(self, detector: nn.Module, split: LoadedSplit | None = None) -> Scores:
        """On the validation split, or on a part of it."""
        split = split or self.data.val
        process_group.broadcast_from_rank0(detector.buffers())
        images = self.images(
            split, process_group.shard(split.valid), test_pipeline(self.job.schedule, self.base_config)
        )
        found = detect(detector, test_loader(images, self.workers), self.reporter.phase_progress)
        self.found = process_group.all_gather_rows(found)
        return score(self.found, split.coco, split.ids)

    def keep_detections(self, role: Role) -> None:
        """Those of the last evaluation, for whoever compares runs image by image."""
        if process_group.rank() != 0:
            return
        split = self.data.val
        content = pack(Detections(self.found, np.array(sorted(split.ids)), self.data.classes, split.sha256))
        name = f"detections-{role}.npz"
        self.reporter.artifact(name, weights.write_bytes(content, self.workdir / name))

    def loaders(self, workers: int) -> TrainingLoaders:
        pipeline, more = training_pipeline(self.job.schedule, self.base_config), self.data.unlabelled
        images = self.images(self.data.train, self.data.labelled, pipeline)
        unlabelled = self.images(more, more.valid, pipeline) if more else None
        return TrainingLoaders(images, self.job.schedule, workers, unlabelled)

    def images(self, split: LoadedSplit, indices: list[int], pipeline: Pipeline) -> DetectionImages:
        return DetectionImages(split.coco, split.files.images, pipeline, self.job.schedule.seed, indices)

    def facts(self, student: nn.Module) -> dict[str, object]:
        more = self.data.unlabelled
        return {
            "classes": list(self.data.classes),
            "train_annotations_sha256": self.data.train.sha256,
            "val_annotations_sha256": self.data.val.sha256,
            "training_images": len(self.data.labelled),
            **({"unlabelled_images": len(more.valid), "unlabelled_annotations_sha256": more.sha256} if more else {}),
            "student_parameters": sum(parameter.numel() for parameter in student.parameters()),
            "processes": process_group.world_size(),
            "device": versions.device_name(self.device),
            "precision": self.precision,
            "versions": versions.versions(),
        }
