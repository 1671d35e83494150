"""Runs one resolved spec in this process, start to end, telling everything as events."""

import hashlib
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.runner import Runner
from torch import nn

from frs import (
    acceleration,
    comparing,
    data,
    detectors,
    distributed,
    events,
    loading,
    precision,
    schedule,
    versions,
    weights,
)
from frs.announcer import Announcer
from frs.bridge import Bridge
from frs.calibration import SHARES
from frs.checkpoints import Checkpoints
from frs.checks import Finding, Step, stop_at_first
from frs.complexity import FLOPS_CONVENTION, complexity
from frs.data import Data, Half
from frs.detections import Detections, pack
from frs.distiller import Distiller, Weights
from frs.errors import BadTeacher, DeviceUnavailable, InvalidSpec, TeacherNotCompetent
from frs.evaluation import Scores, detect, score
from frs.events import Role
from frs.export import Exporter
from frs.heads import dense_head
from frs.images import Images, TrainingLoaders, test_loader, test_pipeline, test_size, training_pipeline, with_boxes
from frs.loop import StepLoop
from frs.paper import PAPER_WEIGHTS
from frs.pictures import richness
from frs.precision import AutocastOptimWrapper, autocast
from frs.probe import Probe, Trial, check_gradients, probe
from frs.resolved import ResolvedSpec
from frs.schedule import Plan
from frs.spec import TERMS, Distillation, JobSpec, Resources
from frs.stopping import StopRequest
from frs.teacher import Teacher
from frs.teacher_cache import TeacherCache, cache_for

IDENTITY = ("kind", "method", "unlabelled", "teacher", "student", "schedule", "distillation")
"""Fields of a spec that a checkpoint depends on."""
RICHNESS_IMAGES = 4
COMPETENT = 0.01
"""Below this mAP on the validation split a teacher is no better than chance."""
TINY = 4
"""A run of so many steps is probed by a single one."""


def run(spec: ResolvedSpec, workdir: Path, emit: events.Emit, stop: StopRequest) -> str:
    """Trains, evaluates or compares, goes on from the newest checkpoint in `workdir`, and returns the end reason.

    Raises FrsError with a code for whatever can be expected to fail, Interrupted when `stop` was asked for.
    """
    if spec.family is not None:
        return comparing.run(spec, spec.family, workdir, emit, stop)
    return Job(spec, workdir, emit, stop).run()


class Job:
    """One execution of a spec: what its phases share. The attributes named here are made in `preparations` and `trials`."""

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

    def __init__(self, spec: ResolvedSpec, workdir: Path, emit: events.Emit, stop: StopRequest) -> None:
        self.spec, self.job, self.workdir, self.stop = spec, spec.job, workdir, stop
        self.announcer = Announcer(emit, workdir)
        self.device = choose_device(self.job.resources)
        self.precision = precision.choose(self.job.schedule.precision, self.device)
        self.stock = detectors.stock_config(spec.student.description)
        self.workers = loader_workers(self.job.resources, self.device)

    def run(self) -> str:
        stop_at_first(self.preparations())
        if self.job.kind == "evaluate":
            self.announcer.phase("evaluating")
            self.announcer.evaluation("student", self.evaluate(self.student), last=True)
            self.keep_detections("student")
            self.tell_complexity()
            return "completed"
        return self.train()

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
        self.data = data.load(self.spec, self.announcer)
        return Finding(f"Both splits have the classes {', '.join(self.data.classes[:8])}.")

    def check_data(self) -> Finding:
        left_out = data.left_out(self.data, self.job.max_bad_share)
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
        batch = next(iter(self.loaders(workers=0)(0, 1)))
        self.loading_seconds = time.monotonic() - started
        thorough = self.plan.steps > TINY or repeats > 1
        states = schedule.OPTIMIZER_STATES[self.job.schedule.optimizer.name]
        precise = partial(autocast, self.precision, self.device.type)
        self.probed = probe(self.model, batch, Trial(precise, states, repeats, foresee=thorough))
        return Finding(
            f"A step on {len(batch['inputs'])} images takes {self.probed.seconds:.3g} s "
            f"and {self.probed.peak_bytes / 2**20:.0f} MiB."
        )

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
        if images is None and distributed.rank() == 0:
            self.keep_detections("teacher")
        reached = f"The teacher reaches mAP {scores.mAP:.4f} on {scores.images} validation images"
        if scores.mAP >= COMPETENT:
            return Finding(f"{reached}.")
        if not self.job.distillation.accept_weak_teacher:
            raise TeacherNotCompetent(f"{reached}, below {COMPETENT}.")
        accepted = f"{reached}, below {COMPETENT}. Accepted because the spec says so."
        self.announcer.warn(accepted)
        return Finding(accepted, warning=True)

    def train(self) -> str:
        checkpoints = Checkpoints(self.workdir / "checkpoints", self.identity())
        if checkpoints.newest() is None:
            stop_at_first(self.trials())
        cache = self.cache()
        exporter = self.exporter(self.student)
        bridge = Bridge(
            plan=self.plan,
            schedule=self.job.schedule,
            announcer=self.announcer,
            stop=self.stop,
            checkpoints=checkpoints,
            evaluate=self.evaluate,
            save_student=exporter.weights,
        )
        runner = self.runner(self.model, self.plan, bridge)
        runner.train()
        if self.spec.teacher and self.teacher.fingerprint() != self.teacher_sha256:
            raise BadTeacher(
                "The teacher's weights changed during training.", "This is a fault of ours: please report it."
            )
        if distributed.rank() == 0:
            self.leave(exporter, cache)
        return "time_limit" if runner.iter < self.plan.steps else "completed"

    def leave(self, exporter: Exporter, cache: TeacherCache | None) -> None:
        """Everything a run leaves beside its checkpoints."""
        if cache is not None:
            cache.remove()
        self.keep_detections("student")
        self.deliver(self.student, exporter)
        if self.spec.teacher:
            self.picture_richness(self.teacher)
        self.tell_complexity()

    def cache(self) -> TeacherCache | None:
        if not isinstance(self.model, Distiller):
            return None
        pipeline = training_pipeline(self.job.schedule, self.stock)
        size = next((step["scale"] for step in pipeline if step["type"] == "Resize"), None)
        cache = self.model.cache = cache_for(self.teacher, self.job, self.data, self.plan, size, self.workdir)
        self.announcer.facts(teacher_cache=cache is not None)
        return cache

    def runner(self, model: nn.Module, plan: Plan, bridge: Bridge) -> Runner:
        clip = self.job.schedule.clip_norm
        return Runner(
            model=model,
            work_dir=str(self.workdir / "mmengine"),
            experiment_name=uuid.uuid4().hex,
            train_dataloader=self.loaders(self.workers),
            train_cfg={"type": StepLoop, "plan": plan},
            optim_wrapper={
                "type": AutocastOptimWrapper,
                "precision": self.precision,
                "device_type": self.device.type,
                "optimizer": {
                    **schedule.optimizer_config(self.job.schedule, plan),
                    **acceleration.optimizer_options(self.device),
                },
                "clip_grad": {"max_norm": clip} if clip else None,
                "paramwise_cfg": self.stock.optim_wrapper.get("paramwise_cfg"),
            },
            param_scheduler=schedule.scheduler_configs(self.job.schedule, plan),
            default_hooks=dict.fromkeys(("runtime_info", "timer", "sampler_seed", "logger", "checkpoint")),
            custom_hooks=[bridge],
            visualizer={"type": "Visualizer", "name": uuid.uuid4().hex},
            randomness={"seed": self.job.schedule.seed, "diff_rank_seed": True},
            log_level="ERROR",
            default_scope="mmdet",
        )

    def evaluate(self, detector: nn.Module, half: Half | None = None) -> Scores:
        """On the validation split, or on a part of it."""
        half = half or self.data.val
        distributed.as_rank_0(detector.buffers())
        images = self.images(half, distributed.share(half.kept), test_pipeline(self.job.schedule, self.stock))
        found = detect(detector, test_loader(images, self.workers), self.announcer.within)
        self.found = distributed.gathered(found)
        return score(self.found, half.coco, half.ids)

    def keep_detections(self, role: Role) -> None:
        """Those of the last evaluation, for whoever compares runs image by image."""
        half = self.data.val
        content = pack(Detections(self.found, np.array(sorted(half.ids)), self.data.classes, half.sha256))
        name = f"detections-{role}.npz"
        self.announcer.artifact(name, weights.write_bytes(content, self.workdir / name))

    def picture_richness(self, teacher: Teacher) -> None:
        """Where the teacher saw something, on a few validation images; a picture that fails is not worth a run."""
        indices = with_boxes(self.data.val.coco, self.data.val.left_out)[:RICHNESS_IMAGES]
        images = self.images(self.data.val, indices, test_pipeline(self.job.schedule, self.stock))
        try:
            content = richness.draw(teacher, test_loader(images, self.workers))
        except Exception as error:
            self.announcer.log(f"The richness could not be drawn: {type(error).__name__}: {error}.", "warning")
            return
        self.announcer.artifact("richness.png", weights.write_bytes(content, self.workdir / "richness.png"))

    def loaders(self, workers: int) -> TrainingLoaders:
        pipeline, more = training_pipeline(self.job.schedule, self.stock), self.data.unlabelled
        images = self.images(self.data.train, self.data.trainable, pipeline)
        unlabelled = self.images(more, more.kept, pipeline) if more else None
        return TrainingLoaders(images, self.job.schedule, workers, unlabelled)

    def images(self, half: Half, indices: list[int], pipeline: Any) -> Images:
        return Images(half.coco, half.split.images, pipeline, self.job.schedule.seed, indices)

    def exporter(self, student: nn.Module) -> Exporter:
        model = detectors.model_config(self.spec.student.description, len(self.data.classes))
        name = self.job.name or type(student).__name__.lower()
        pipeline = test_pipeline(self.job.schedule, self.stock)
        return Exporter(self.workdir / "student", name, model, self.data.classes, pipeline)

    def deliver(self, student: nn.Module, exporter: Exporter) -> None:
        """The last student's twin and config, beside its weights."""
        self.announcer.phase("exporting")
        file = exporter.weights(student)
        for name, written in [
            ("student.safetensors", exporter.twin(student, file)),
            ("student-config.py", exporter.config(file, self.data.val.split)),
        ]:
            self.announcer.artifact(name, written)
        self.announcer.facts(student_sha256=file.sha256)

    def tell_complexity(self) -> None:
        sides = {"student": self.student} | ({"teacher": self.teacher.detector} if self.spec.teacher else {})
        size = test_size(self.job.schedule, self.stock)
        for role, detector in sides.items():
            self.announcer.facts(**complexity(detector, size).facts(role))
        device = versions.device_name(self.device)
        self.announcer.facts(latency_device=device, flops_convention=FLOPS_CONVENTION)

    def facts(self, student: nn.Module) -> dict[str, object]:
        more = self.data.unlabelled
        return {
            "classes": list(self.data.classes),
            "train_annotations_sha256": self.data.train.sha256,
            "val_annotations_sha256": self.data.val.sha256,
            "training_images": len(self.data.trainable),
            **({"unlabelled_images": len(more.kept), "unlabelled_annotations_sha256": more.sha256} if more else {}),
            "student_parameters": sum(parameter.numel() for parameter in student.parameters()),
            "processes": distributed.processes(),
            "device": versions.device_name(self.device),
            "precision": self.precision,
            "versions": versions.versions(),
        }

    def identity(self) -> str:
        """What a checkpoint must agree with to be gone on from."""
        asked = self.job.model_dump_json(include=set(IDENTITY))
        more = [self.data.unlabelled.sha256] if self.data.unlabelled else []
        read = [d for d in (self.spec.teacher, self.spec.student) if d and d.weights]
        digests = [d.sha256 or weights.digest(d.weights) for d in read if d.weights]
        files = [self.data.train.sha256, *more, *digests]
        return hashlib.sha256("\n".join([asked, *files]).encode()).hexdigest()


def distiller(student: nn.Module, teacher: Teacher, job: JobSpec, plan: Plan) -> Distiller:
    """Student and teacher joined by a fresh adapter, which draws from a generator of its own."""
    wanted, terms = job.distillation, TERMS[job.method]
    chosen = {"feature": wanted.feature_weight, "logit": wanted.logit_weight}
    if "paper" in chosen.values():
        head = type(dense_head(student)).__name__
        if head not in PAPER_WEIGHTS:
            raise InvalidSpec(f"The paper has no weights for {head}.", "Use `auto` or numbers.")
        chosen = {name: getattr(PAPER_WEIGHTS[head], name) if w == "paper" else w for name, w in chosen.items()}
    given = {name: None if weight == "auto" else float(weight) for name, weight in chosen.items()}
    feature, logit = (given[name] if name in terms else 0.0 for name in given)
    ramp_steps = schedule.warmup(wanted.warmup_steps, plan.steps)
    diagnose_every = max(1, min(50, plan.steps // 100))
    with torch.random.fork_rng():
        torch.manual_seed(job.schedule.seed)
        return Distiller(student, teacher, wanted, Weights(feature, logit), ramp_steps, job.method, diagnose_every)


def distillation_facts(model: Distiller, asked: Distillation) -> dict[str, object]:
    """`weights` only where they are given; calibrated ones follow when they are found."""
    paper = PAPER_WEIGHTS.get(type(dense_head(model.student)).__name__)
    return {
        "strides": list(model.strides),
        "teacher_parameters": sum(parameter.numel() for parameter in model.teacher.detector.parameters()),
        "weights_asked": {"feature": asked.feature_weight, "logit": asked.logit_weight},
        "weights_paper": paper._asdict() if paper else None,
        "weights_shares": {name: SHARES[name] for name in model.terms if model.weights.of(name) is None},
        **({"weights": vars(model.weights)} if model.calibrated else {}),
    }


def choose_device(resources: Resources) -> torch.device:
    """Raises DeviceUnavailable when more GPUs are asked for than there are, or processes on the CPU beside a GPU."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (resources.devices or 0) > found:
        raise DeviceUnavailable(f"{resources.devices} GPU(s) asked for, {found or 'none'} found.")
    if found and resources.processes > 1:
        raise DeviceUnavailable(
            "`resources.processes` is for the CPU, and there is a GPU.",
            "Set `resources.devices` to 0 for the CPU, or to as many GPUs instead of `processes`.",
        )
    return torch.device("cuda" if found else "cpu")


def loader_workers(resources: Resources, device: torch.device) -> int:
    if resources.loader_workers is not None:
        return resources.loader_workers
    return 4 if device.type == "cuda" else 0
