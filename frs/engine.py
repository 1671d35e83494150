"""Runs one resolved spec in this process, start to end, telling everything as events."""

import hashlib
import uuid
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import Runner
from torch import nn

from frs import data, detectors, distributed, events, precision, schedule, versions, weights
from frs.announcer import Announcer
from frs.bridge import Bridge
from frs.checkpoints import Checkpoints
from frs.data import Half
from frs.dataset.classes import difference
from frs.distiller import Distiller, Weights
from frs.errors import BadTeacher, ClassMismatch, DeviceUnavailable, InvalidSpec, TeacherNotCompetent
from frs.evaluation import Scores, detect, score
from frs.export import Exporter
from frs.heads import dense_head
from frs.images import Images, TrainingLoaders, test_loader, test_pipeline, training_pipeline
from frs.loop import StepLoop
from frs.paper import PAPER_WEIGHTS
from frs.precision import AutocastOptimWrapper
from frs.resolved import ResolvedDetector, ResolvedSpec
from frs.schedule import Plan
from frs.spec import TERMS, Distillation, JobSpec, Resources
from frs.stopping import StopRequest
from frs.teacher import Teacher

IDENTITY = ("kind", "method", "unlabelled", "teacher", "student", "schedule", "distillation")
"""Fields of a spec that a checkpoint depends on."""
COMPETENT = 0.01
"""Below this mAP on the validation split a teacher is no better than chance."""


def run(spec: ResolvedSpec, workdir: Path, emit: events.Emit, stop: StopRequest) -> str:
    """Trains or evaluates, goes on from the newest checkpoint in `workdir`, and returns the end reason.

    Raises FrsError with a code for whatever can be expected to fail, Interrupted when `stop` was asked for.
    """
    return Job(spec, workdir, emit, stop).run()


class Job:
    """One execution of a spec: what its phases share."""

    def __init__(self, spec: ResolvedSpec, workdir: Path, emit: events.Emit, stop: StopRequest) -> None:
        self.spec, self.job, self.workdir, self.stop = spec, spec.job, workdir, stop
        self.announcer = Announcer(emit, workdir)
        self.device = choose_device(self.job.resources)
        self.precision = precision.choose(self.job.schedule.precision, self.device)
        self.stock = detectors.stock_config(spec.student.description)
        self.workers = loader_workers(self.job.resources, self.device)

    def run(self) -> str:
        self.announcer.phase("checking")
        self.data = data.load(self.spec, self.announcer)
        self.announcer.phase("loading")
        torch.manual_seed(self.job.schedule.seed)
        student = self.detector(self.spec.student)
        self.announcer.facts(**self.facts(student))
        if self.job.kind == "evaluate":
            self.announcer.phase("evaluating")
            self.announcer.evaluation("student", self.evaluate(student), last=True)
            return "completed"
        return self.train(student)

    def detector(self, wanted: ResolvedDetector) -> nn.Module:
        """Built with its weights, on the device. Raises ClassMismatch, TeacherWeightsMismatch, WeightsUnreadable."""
        detector = detectors.build(wanted.description, len(self.data.classes), self.spec.models)
        if wanted.weights is not None:
            content = weights.read(wanted.weights, wanted.sha256)
            check_classes(weights.classes_of(content), self.data.classes, wanted.weights.name)
            weights.load(detector, content, wanted.weights.name)
        return detector.to(self.device)

    def train(self, student: nn.Module) -> str:
        plan = schedule.plan(self.job.schedule, self.stock, len(self.data.trainable))
        model = student
        checkpoints = Checkpoints(self.workdir / "checkpoints", self.identity())
        teacher = Teacher(self.detector(self.spec.teacher)) if self.spec.teacher else None
        if teacher is not None:
            before = teacher.fingerprint()
            self.announcer.facts(teacher_sha256=before, method=self.job.method)
            if self.job.method != "none":
                model = distiller(student, teacher, self.job, plan)
                self.announcer.facts(**distillation_facts(model, self.job.distillation))
            if checkpoints.newest() is None:
                self.check_teacher(teacher)
        exporter = self.exporter(student)
        bridge = Bridge(
            plan=plan,
            schedule=self.job.schedule,
            announcer=self.announcer,
            stop=self.stop,
            checkpoints=checkpoints,
            evaluate=self.evaluate,
            save_student=exporter.weights,
        )
        runner = self.runner(model, plan, bridge)
        runner.train()
        if teacher is not None and teacher.fingerprint() != before:
            raise BadTeacher(
                "The teacher's weights changed during training.", "This is a fault of ours: please report it."
            )
        if distributed.rank() == 0:
            self.deliver(student, exporter)
        return "time_limit" if runner.iter < plan.steps else "completed"

    def runner(self, model: nn.Module, plan: Plan, bridge: Bridge) -> Runner:
        pipeline, more = training_pipeline(self.job.schedule, self.stock), self.data.unlabelled
        images = self.images(self.data.train, self.data.trainable, pipeline)
        unlabelled = self.images(more, more.kept, pipeline) if more else None
        clip = self.job.schedule.clip_norm
        return Runner(
            model=model,
            work_dir=str(self.workdir / "mmengine"),
            experiment_name=uuid.uuid4().hex,
            train_dataloader=TrainingLoaders(images, self.job.schedule, self.workers, unlabelled),
            train_cfg={"type": StepLoop, "plan": plan},
            optim_wrapper={
                "type": AutocastOptimWrapper,
                "precision": self.precision,
                "device_type": self.device.type,
                "optimizer": schedule.optimizer_config(self.job.schedule, plan),
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

    def check_teacher(self, teacher: Teacher) -> None:
        """Measures the teacher. Raises TeacherNotCompetent unless the spec accepts a weak one."""
        self.announcer.phase("evaluating the teacher")
        scores = self.evaluate(teacher.detector)
        self.announcer.evaluation("teacher", scores, last=True)
        if scores.mAP >= COMPETENT:
            return
        said = f"The teacher reaches mAP {scores.mAP:.4f} on the validation split, below {COMPETENT}."
        if not self.job.distillation.accept_weak_teacher:
            raise TeacherNotCompetent(said)
        self.announcer.log(f"{said} Accepted because the spec says so.", "warning")

    def evaluate(self, detector: nn.Module) -> Scores:
        half = self.data.val
        distributed.as_rank_0(detector.buffers())
        images = self.images(half, distributed.share(half.kept), test_pipeline(self.job.schedule, self.stock))
        detections = detect(detector, test_loader(images, self.workers), self.announcer.within)
        return score(distributed.gathered(detections), half.coco, half.ids)

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
        files = [self.data.train.sha256, *more, *(d.sha256 or "" for d in (self.spec.teacher, self.spec.student) if d)]
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
        **({"weights": vars(model.weights)} if model.calibrated else {}),
    }


def check_classes(trained: tuple[str, ...] | None, wanted: tuple[str, ...], name: str) -> None:
    """A weights file that says nothing of classes passes: the shapes are compared later. Raises ClassMismatch."""
    if text := difference(wanted, trained, name) if trained is not None else None:
        raise ClassMismatch(text)


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
