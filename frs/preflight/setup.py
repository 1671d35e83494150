"""What a job needs before its first step, made and checked part by part: data, detectors, steps, one trial of each."""

import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from frs.dataset import splits
from frs.dataset.splits import Data, Half
from frs.detectors import builder, loading, weights
from frs.distillation.builder import distillation_facts, distiller
from frs.distillation.teacher import Teacher
from frs.errors import TeacherNotCompetent
from frs.evaluation.coco_scores import Scores, detect, score
from frs.evaluation.detections import Detections, pack
from frs.events import Emit, Role
from frs.preflight.checks import Finding, Step
from frs.preflight.probe import Probe, Trial, check_gradients, part, probe
from frs.resolved import ResolvedSpec
from frs.training import acceleration, precision, process_group, schedule, versions
from frs.training.batches import Batch, Images, Pipeline, TrainingLoaders, test_loader, test_pipeline, training_pipeline
from frs.training.devices import choose_device, loader_workers
from frs.training.event_reporter import Announcer
from frs.training.precision import autocast
from frs.training.schedule import Plan

COMPETENT = 0.01
"""Below this mAP on the validation split a teacher is no better than chance."""
TINY = 4
"""A run of so many steps is probed by a single one."""


class Preparation:
    """What the phases of a job share. The attributes named here are made in `preparations` and `trials`."""

    data: Data
    student: nn.Module
    plan: Plan
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
        self.announcer = Announcer(emit, workdir)
        self.device = choose_device(self.job.resources)
        self.precision = precision.choose(self.job.schedule.precision, self.device)
        self.stock = builder.stock_config(spec.student.description)
        self.workers = loader_workers(self.job.resources, self.device)

    def preparations(self) -> list[Step]:
        """What every attempt makes, each part checked as it is made."""
        steps = [
            Step("class_mismatch", self.read_data),
            Step("bad_dataset", self.check_data, ("data",)),
            Step("student_weights", self.build_student, ("data",)),
        ]
        if self.job.kind != "evaluate":
            steps.append(Step("schedule", self.plan_steps, ("data",)))
        if self.spec.teacher is not None:
            steps.append(Step("teacher_weights_mismatch", self.build_teacher, ("data",)))
            steps.append(Step("teacher_fits", self.join, ("student", "teacher", "plan")))
        return steps

    def trials(self, repeats: int = 1, teacher_images: int | None = None) -> list[Step]:
        """What the first attempt tries out before it trains: `repeats` timed steps, the teacher on so many images or all."""
        if self.job.kind == "evaluate":
            return []
        steps = [
            Step("batch_too_large", partial(self.probe, repeats), ("model",)),
            Step("no_gradient", self.check_gradients, ("probed",)),
        ]
        if self.spec.teacher is not None:
            steps.append(Step("teacher_not_competent", partial(self.check_teacher, teacher_images), ("teacher",)))
        return steps

    def read_data(self) -> Finding:
        self.announcer.phase("checking")
        self.data = splits.load_splits(self.spec, self.announcer.within)
        return Finding(f"Both splits have the classes {', '.join(self.data.classes[:8])}.")

    def check_data(self) -> Finding:
        left_out = splits.left_out(self.data, self.job.max_bad_share)
        self.announcer.warn(*left_out)
        found = f"{len(self.data.train.kept)} images to train on, {len(self.data.val.kept)} to validate on."
        return Finding(" ".join([found, *left_out]), warning=bool(left_out))

    def build_student(self) -> Finding:
        self.announcer.phase("loading")
        torch.manual_seed(self.job.schedule.seed)
        wanted = (self.spec.student, self.data.classes, self.spec.models)
        strict = self.job.kind == "evaluate"
        student, left_out = (loading.detector(*wanted), ()) if strict else loading.student_to_train(*wanted)
        self.student = acceleration.placed(student, self.device)
        if self.spec.teacher is None:
            self.model = self.student
        self.announcer.facts(**self.facts(student), weights_left_out=list(left_out))
        if not left_out:
            return Finding(f"The student is built: {type(student).__name__}.")
        said = f"The student's weights are of other classes: it starts without {', '.join(left_out)}."
        self.announcer.warn(said)
        return Finding(said, warning=True)

    def plan_steps(self) -> Finding:
        self.plan = schedule.plan(self.job.schedule, self.stock, len(self.data.trainable))
        return Finding(f"{self.plan.steps} steps, {self.plan.steps_per_epoch} an epoch.")

    def build_teacher(self) -> Finding:
        assert self.spec.teacher is not None
        built = loading.detector(self.spec.teacher, self.data.classes, self.spec.models)
        self.teacher = Teacher(acceleration.placed(built, self.device))
        return Finding(f"The teacher is built: {type(built).__name__}.")

    def join(self) -> Finding:
        self.teacher_sha256 = self.teacher.fingerprint()
        self.announcer.facts(teacher_sha256=self.teacher_sha256, method=self.job.method)
        if self.job.method == "none":
            self.model = self.student
            return Finding("Method `none`: the student trains alone.")
        model = distiller(self.student, self.teacher, self.job, self.plan)
        self.model = acceleration.placed(model, self.device)
        self.announcer.facts(**distillation_facts(model, self.job.distillation))
        return Finding(f"Strides in common: {', '.join(map(str, model.strides))}.")

    def probe(self, repeats: int) -> Finding:
        """One training step without a trace, several where `repeats` says so. Raises BatchTooLarge."""
        self.announcer.phase("probing")
        started = time.monotonic()
        batch = self.first_batch()
        self.loading_seconds = time.monotonic() - started
        thorough = self.plan.steps > TINY or repeats > 1
        states = schedule.OPTIMIZER_STATES[self.job.schedule.optimizer.name]
        precise = partial(autocast, self.precision, self.device.type)
        self.probed = probe(self.model, batch, Trial(precise, states, repeats, foresee=thorough))
        each = " a process" if self.job.resources.trainers > 1 else ""
        return Finding(
            f"A step on {len(batch['inputs'])} images{each} takes {self.probed.seconds:.3g} s "
            f"and {self.probed.peak_bytes / 2**20:.0f} MiB."
        )

    def first_batch(self) -> Batch:
        """One process's share of it, also where a single process plans for several."""
        batch = next(iter(self.loaders(workers=0)(0, 1)))
        missing = self.job.resources.trainers // process_group.processes()
        return part(batch, -(-len(batch["inputs"]) // missing))

    def check_gradients(self) -> Finding:
        check_gradients(self.probed)
        self.announcer.facts(gradients_at_start=self.probed.gradients)
        told = ", ".join(f"{name} {norm:.3g}" for name, norm in self.probed.gradients.items())
        return Finding(f"Gradients reach the student, of norm: {told}.")

    def check_teacher(self, images: int | None = None) -> Finding:
        """Measures the teacher. Raises TeacherNotCompetent unless the spec accepts a weak one."""
        self.announcer.phase("evaluating the teacher")
        half = self.data.val if images is None else self.data.val.sample(images)
        started = time.monotonic()
        scores = self.evaluate(self.teacher.detector, half)
        self.seconds_per_image = (time.monotonic() - started) / max(1, scores.images)
        self.announcer.evaluation("teacher", scores, last=True)
        if images is None:
            self.keep_detections("teacher")
        reached = f"The teacher reaches mAP {scores.mAP:.4f} on {scores.images} validation images"
        if scores.mAP >= COMPETENT:
            return Finding(f"{reached}.")
        if not self.job.distillation.accept_weak_teacher:
            raise TeacherNotCompetent(f"{reached}, below {COMPETENT}.")
        accepted = f"{reached}, below {COMPETENT}. Accepted because the spec says so."
        self.announcer.warn(accepted)
        return Finding(accepted, warning=True)

    def evaluate(self, detector: nn.Module, half: Half | None = None) -> Scores:
        """On the validation split, or on a part of it."""
        half = half or self.data.val
        process_group.as_rank_0(detector.buffers())
        images = self.images(half, process_group.share(half.kept), test_pipeline(self.job.schedule, self.stock))
        found = detect(detector, test_loader(images, self.workers), self.announcer.within)
        self.found = process_group.gathered(found)
        return score(self.found, half.coco, half.ids)

    def keep_detections(self, role: Role) -> None:
        """Those of the last evaluation, for whoever compares runs image by image."""
        if process_group.rank() != 0:
            return
        half = self.data.val
        content = pack(Detections(self.found, np.array(sorted(half.ids)), self.data.classes, half.sha256))
        name = f"detections-{role}.npz"
        self.announcer.artifact(name, weights.write_bytes(content, self.workdir / name))

    def loaders(self, workers: int) -> TrainingLoaders:
        pipeline, more = training_pipeline(self.job.schedule, self.stock), self.data.unlabelled
        images = self.images(self.data.train, self.data.trainable, pipeline)
        unlabelled = self.images(more, more.kept, pipeline) if more else None
        return TrainingLoaders(images, self.job.schedule, workers, unlabelled)

    def images(self, half: Half, indices: list[int], pipeline: Pipeline) -> Images:
        return Images(half.coco, half.split.images, pipeline, self.job.schedule.seed, indices)

    def facts(self, student: nn.Module) -> dict[str, object]:
        more = self.data.unlabelled
        return {
            "classes": list(self.data.classes),
            "train_annotations_sha256": self.data.train.sha256,
            "val_annotations_sha256": self.data.val.sha256,
            "training_images": len(self.data.trainable),
            **({"unlabelled_images": len(more.kept), "unlabelled_annotations_sha256": more.sha256} if more else {}),
            "student_parameters": sum(parameter.numel() for parameter in student.parameters()),
            "processes": process_group.processes(),
            "device": versions.device_name(self.device),
            "precision": self.precision,
            "versions": versions.versions(),
        }
