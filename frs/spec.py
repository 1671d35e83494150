"""The job spec: what a user asks for. Typed data, frozen, nothing unknown accepted, importable without torch."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StringConstraints,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

_NAME_LENGTH = 100
Name = Annotated[
    str, StringConstraints(min_length=1, max_length=_NAME_LENGTH, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._@-]*$")
]
Kind = Literal["distill", "train", "evaluate", "compare"]
"""`compare` is the service's own: it ends a job with a `baseline`, and nobody can post one."""
Architecture = Literal["retinanet", "gfl", "fcos", "faster_rcnn"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Method = Literal["frs", "feature", "logit", "uniform", "boxes", "pkd", "none"]
TermName = Literal["feature", "logit"]
TERMS: dict[Method, tuple[TermName, ...]] = {
    "frs": ("feature", "logit"),
    "feature": ("feature",),
    "logit": ("logit",),
    "uniform": ("feature", "logit"),
    "boxes": ("feature", "logit"),
    "pkd": ("feature",),
    "none": (),
}
"""What a method compares: pyramid features, class logits. `frs.distillation.methods` says how."""
Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | Literal["auto", "paper"]
Priority = Annotated[int, Field(ge=-100, le=100)]
Tags = Annotated[tuple[Annotated[str, StringConstraints(max_length=64)], ...], Field(max_length=32)]
Metadata = dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=512)]]


def _inside_the_root(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith(("/", "~")) or ".." in parts or "\\" in path or "\0" in path or "://" in path:
        raise ValueError("must be a relative path inside the configured folder, without '..' and not a URL")
    return path


RelativePath = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_inside_the_root)]


class Spec(BaseModel):
    """Base of every part of a spec."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic takes it for 0 or 1. A text that says a number is welcome: YAML reads `1e-3` as one."""
        if any(isinstance(item, bool) for item in (value if isinstance(value, list) else [value])):
            wanted = list(_leaves(cls.model_fields[info.field_name or ""].annotation))
            if (int in wanted or float in wanted) and bool not in wanted:
                raise ValueError("must be a number, not true or false")
        return value


def _leaves(annotation: Any) -> Iterator[Any]:
    parts = get_args(annotation)
    for part in parts:
        yield from _leaves(part)
    if not parts:
        yield annotation


class InitFromDetector(Spec):
    detector: Name


class InitFromFile(Spec):
    weights: RelativePath
    """File under the models folder."""


Init = Literal["random", "imagenet"] | InitFromDetector | InitFromFile


class DetectorByName(Spec):
    """A registered detector, with its own weights."""

    detector: Name


class DetectorOfJob(Spec):
    """The student that job trained; a queued job waits for it."""

    job: Annotated[str, StringConstraints(pattern=r"^job_[0-9a-z]{26}$")]


class ConfigDetector(Spec):
    """A detector by the name of a stock mmdet config."""

    config: Annotated[str, StringConstraints(pattern=r"^mmdet::[a-z0-9_]+/[A-Za-z0-9_.-]+\.py$", max_length=200)]
    init: Init = "imagenet"


class Backbone(Spec):
    type: Literal["ResNet"] = "ResNet"
    depth: Literal[18, 34, 50, 101] = 50
    width: Annotated[int, Field(ge=8, le=256, multiple_of=8)] = 64
    """Channels of the stem; stage i has width * 2**i (times 4 with bottlenecks, depth >= 50)."""
    norm: Literal["frozen_bn", "gn"] = "frozen_bn"
    """`frozen_bn` as stock mmdet: running statistics stay as they are. `gn`: group norm, 8 groups, also in the neck."""


class DescribedDetector(Spec):
    """A detector by description; whatever is not said is as in the architecture's base config."""

    architecture: Architecture
    backbone: Backbone = Backbone()
    neck_channels: Annotated[int, Field(ge=16, le=512, multiple_of=16)] = 256
    stacked_convs: Annotated[int, Field(ge=1, le=8)] | None = None
    init: Init = "random"


DetectorDescription = ConfigDetector | DescribedDetector
_DETECTOR_KEYS = {"detector": "detector", "job": "job", "config": "config", "architecture": "architecture"}


def _detector_kind(value: Any) -> str | None:
    keys = value.keys() if isinstance(value, dict) else type(value).model_fields if isinstance(value, Spec) else ()
    return next((tag for key, tag in _DETECTOR_KEYS.items() if key in keys), None)


DetectorRef = Annotated[
    Annotated[DetectorByName, Tag("detector")]
    | Annotated[DetectorOfJob, Tag("job")]
    | Annotated[ConfigDetector, Tag("config")]
    | Annotated[DescribedDetector, Tag("architecture")],
    Discriminator(
        _detector_kind,
        custom_error_type="detector_unclear",
        custom_error_message="Say which detector: one of the keys `detector`, `job`, `config` or `architecture`.",
    ),
]


class Optimizer(Spec):
    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] | None = None
    """Per step of `batch_size` images. Absent: SGD the stock value scaled by batch size / 16, AdamW 1e-3."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, le=1)] | None = None


class LrSchedule(Spec):
    """Learning rate over the steps: a linear warm-up, then by `name`."""

    name: Literal["step", "cosine"] = "step"
    milestones: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    """Epochs after which the rate falls tenfold. Absent: the base config's, in proportion to the epochs."""
    warmup_steps: Annotated[int, Field(ge=0, le=100_000)] | Literal["auto"] = "auto"
    """`auto` = min(500, 5 % of the steps)."""


Side = Annotated[int, Field(ge=32, le=4096)]
Size = tuple[Side, Side]


class Schedule(Spec):
    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Ends the run after so many steps, wherever in the epochs that is."""
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 16
    optimizer: Optimizer = Optimizer()
    lr_schedule: LrSchedule = LrSchedule()
    max_grad_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 35.0
    """Largest gradient norm; null turns clipping off."""
    image_size: Size | None = None
    """[width, height] that images are scaled into, keeping their shape. Absent: the base config's, 1333 x 800."""
    train_sizes: Annotated[tuple[Size, ...], Field(min_length=1, max_length=16)] | None = None
    """Training sizes, one drawn for each image. Absent: `image_size` alone."""
    flip_prob: Annotated[float, Field(ge=0, le=1)] = 0.5
    precision: Precision = "auto"
    """`auto` = bf16 on a GPU that has it, else fp32."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    evaluate_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between evaluations; there is always one at the end."""
    checkpoint_every: Annotated[int, Field(ge=1)] | None = None
    """Steps between checkpoints. Absent: one at the end of every epoch."""


class Distillation(Spec):
    feature_weight: Weight = "auto"
    logit_weight: Weight = "auto"
    warmup_steps: Annotated[int, Field(ge=0, le=100_000)] | Literal["auto"] = "auto"
    """Steps over which the terms ramp from 0 to their weight; `auto` = min(500, 5 % of the steps)."""
    adapter: Literal["1x1", "3x3"] = "3x3"
    accept_weak_teacher: StrictBool = False
    teacher_cache: Literal["auto", "on", "off"] = "auto"
    """Keeps the teacher's outputs on disk between epochs. `auto`: where all images are scaled to one shape, there are
    enough epochs for it to repay, and a quarter of the free disk holds them."""

    @model_validator(mode="after")
    def _some_weight(self) -> "Distillation":
        if self.feature_weight == 0 and self.logit_weight == 0:
            raise ValueError("feature_weight and logit_weight are both 0: use method `none` or kind `train`")
        return self


class Resources(Spec):
    devices: Annotated[int, Field(ge=0, le=64)] | None = None
    """GPUs, each with a process that has its share of every batch. Absent: one if there is any, else the CPU. 0: the CPU."""
    processes: Annotated[int, Field(ge=1, le=16)] = 1
    """On the CPU: processes that have their share of every batch."""
    loader_workers: Annotated[int, Field(ge=0, le=32)] | None = None
    """Processes that read images, for each that trains. Absent: 4 with a GPU, else 0."""
    max_minutes: Annotated[int, Field(ge=1)] | None = None

    @property
    def trainers(self) -> int:
        """Processes that the job is run by."""
        return self.devices or self.processes

    @model_validator(mode="after")
    def _processes_are_for_the_cpu(self) -> "Resources":
        if self.devices and self.processes > 1:
            raise ValueError("`processes` is for the CPU: each of the `devices` has a process anyway")
        return self


DISTILLATION_METHODS = {"teacher", "method", "unlabelled", "distillation", "baseline"}
"""Fields that a student trained alone has no use for."""


class BaselineSeeds(Spec):
    seeds: Annotated[int, Field(ge=1, le=32)]
    """Pairs of runs, of the seeds `schedule.seed`, `schedule.seed` + 1 and so on."""


class JobSpec(Spec):
    """One job. `distill` trains `student` under `teacher`, `train` trains `student` alone, `evaluate` scores `student`."""

    name: Name | None = None
    kind: Kind = "distill"
    method: Method = "frs"
    """What the student is compared by: `frs`, its halves `feature` and `logit`; the same terms under other masks,
    `uniform` and `boxes`; `pkd`, standardised features; `none`, the student alone beside the teacher's numbers."""
    dataset: Name
    """Id or name of a registered data set."""
    unlabelled: Name | None = None
    """Id or name of a second data set whose training images, boxes ignored, teach through the teacher alone: up to
    `batch_size` of them in each step, beside those of `dataset`."""
    teacher: DetectorRef | None = None
    student: DetectorRef
    schedule: Schedule = Schedule()
    distillation: Distillation = Distillation()
    baseline: StrictBool | BaselineSeeds = False
    """Also train the student alone, same seed and schedule, as a job of its own; the report compares.

    With `{seeds: n}` n pairs of runs, so that the report can tell the gain from the luck of training.
    """
    resources: Resources = Resources()
    priority: Priority = 0
    """Jobs of a higher one are taken first; `PATCH /jobs/{id}` changes it. The engine alone has no use for it."""
    max_invalid_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the data set's images that may have issues and be left out."""
    tags: Tags = ()
    metadata: Annotated[Metadata, Field(max_length=32)] = {}

    @model_validator(mode="after")
    def _parts_fit_the_kind(self) -> "JobSpec":
        if self.kind == "distill" and self.teacher is None:
            raise ValueError("kind `distill` needs a `teacher`; kind `train` trains the student alone")
        if self.pairs and self.schedule.seed + self.pairs > 2**32:
            raise ValueError("`schedule.seed` is too large for so many seeds")
        if self.kind != "distill" and (self.teacher is not None or self.baseline):
            raise ValueError(f"`teacher` and `baseline` belong to kind `distill`, not `{self.kind}`")
        self._nothing_is_said_in_vain()
        self._method_has_something_to_do()
        if self.kind != "evaluate" and self.schedule.batch_size % self.resources.trainers:
            raise ValueError(
                f"`schedule.batch_size`, {self.schedule.batch_size}, is shared by {self.resources.trainers} processes:"
                " it must be divisible by that"
            )
        if self.kind != "evaluate" and not isinstance(self.student, ConfigDetector | DescribedDetector):
            raise ValueError(
                "`student` is a description (`config` or `architecture`); start it from weights with `init`"
            )
        return self

    def _nothing_is_said_in_vain(self) -> None:
        if self.kind != "distill" and (self.method != "frs" or self.distillation != Distillation()):
            raise ValueError(f"`method` and `distillation` belong to kind `distill`, not `{self.kind}`")
        if self.kind == "evaluate" and self.resources.max_minutes is not None:
            raise ValueError("`resources.max_minutes` ends training; kind `evaluate` does not train")
        if self.method == "none" and self.distillation.teacher_cache == "on":
            raise ValueError("method `none` has no use for `teacher_cache`")
        if self.method == "boxes" and self.unlabelled:
            raise ValueError("method `boxes` looks inside boxes, and `unlabelled` images have none")

    def _method_has_something_to_do(self) -> None:
        terms = TERMS[self.method]
        weights: dict[TermName, Weight] = {
            "feature": self.distillation.feature_weight,
            "logit": self.distillation.logit_weight,
        }
        if terms and not any(weights[term] for term in terms):
            raise ValueError(f"method `{self.method}` has the {terms[0]} term alone, and its weight is 0")
        unused = [
            f"{name}_weight" for name, weight in weights.items() if name not in terms and weight not in ("auto", 0)
        ]
        if unused:
            raise ValueError(f"method `{self.method}` has no use for {' and '.join(unused)}")
        if self.method == "pkd" and "paper" in weights.values():
            raise ValueError("the paper has no weights for method `pkd`; use `auto` or a number")
        if self.unlabelled and (self.kind != "distill" or not terms):
            raise ValueError("`unlabelled` images are for distillation: kind `distill` and a method other than `none`")

    @property
    def pairs(self) -> int:
        """Pairs of runs it asks for; 0 without a baseline."""
        return self.baseline.seeds if isinstance(self.baseline, BaselineSeeds) else int(self.baseline)


def baseline_of(spec: JobSpec, number: int = 0) -> JobSpec:
    """The baseline of pair `number`: the same student on the same data, schedule and seed, without a teacher."""
    fields = spec.model_dump(exclude=DISTILLATION_METHODS)
    return JobSpec.model_validate(fields | {"kind": "train"} | _as_run(spec, "-baseline", number))


def seed_variant(spec: JobSpec, number: int) -> JobSpec:
    """The distilled student of pair `number`, a run by itself."""
    return JobSpec.model_validate(spec.model_dump() | {"baseline": False} | _as_run(spec, "", number))


def comparison_of(spec: JobSpec) -> JobSpec:
    """The job that compares the runs of `spec` once they have ended."""
    fields = spec.model_dump(exclude=DISTILLATION_METHODS)
    resources = spec.resources.model_copy(update={"max_minutes": None})
    return JobSpec.model_validate(
        fields | {"kind": "compare", "name": _renamed(spec, "-comparison"), "resources": resources.model_dump()}
    )


def _as_run(spec: JobSpec, suffix: str, number: int) -> dict[str, Any]:
    seed = spec.schedule.seed + number
    name = _renamed(spec, suffix + (f"-seed{seed}" if spec.pairs > 1 and (suffix or number) else ""))
    return {"name": name, "schedule": spec.schedule.model_dump() | {"seed": seed}}


def _renamed(spec: JobSpec, suffix: str) -> str | None:
    return spec.name and spec.name[: _NAME_LENGTH - len(suffix)] + suffix
