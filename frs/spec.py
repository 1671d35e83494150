"""The job spec: the fields of a job. Frozen models that accept no unknown field; importing them needs no torch."""

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StringConstraints, model_validator

from frs.detector_spec import (
    ConfigDetector,
    DescribedDetector,
    DetectorOfJob,
    DetectorRef,
    InitFromDetector,
    InitFromFile,
    InitFromJob,
)
from frs.distillation_spec import Distillation, Method, MethodTerms
from frs.names import Name, add_suffix
from frs.schedule_spec import Schedule
from frs.spec_model import Spec

Kind = Literal["distill", "train", "quantize", "evaluate", "export", "compare"]
"""`compare` is internal: the service creates it for a job with a `baseline`, and the API rejects it."""
ExportFormat = Literal["onnx", "onnx-int8", "onnx-no-nms"]
MAX_DETECTIONS = 100
"""COCO's limit on the detections of an image: those with the highest scores count."""
Priority = Annotated[int, Field(ge=-100, le=100)]
Tags = Annotated[tuple[Annotated[str, StringConstraints(max_length=64)], ...], Field(max_length=32)]
Metadata = dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=512)]]


class EvaluationSettings(Spec):
    """The evaluation on the validation split."""

    max_detections: Annotated[int, Field(ge=1, le=3000)] = MAX_DETECTIONS
    """Number of detections on an image that count: the limit of the COCO metrics, and of the detections that student,
    baseline, teacher and the delivered config return. Raise it if images have more objects. At 100, COCO's limit, a
    detector whose base config returns more keeps that number."""


class ExportSettings(Spec):
    """The exported files of kind `export`."""

    formats: Annotated[tuple[ExportFormat, ...], Field(min_length=1, max_length=3)] = ("onnx", "onnx-int8")
    """`onnx`: an fp32 ONNX file from the image to its boxes. `onnx-int8`: the same file with 8-bit weights and
    activations (QDQ, per channel). `onnx-no-nms`: an fp32 file of one-stage detectors from a batch of scaled images of
    one size to the boxes and scores before NMS, for runtimes of devices that have no NMS."""
    input_size: Literal["dynamic", "fixed"] = "dynamic"
    """`dynamic`: the network computes on the scaled image, as in training. `fixed`: one size, for runtimes
    that need it, and always for `onnx-no-nms`: the one that most validation images are scaled to, rounded up to a
    multiple of the coarsest stride. Images of another aspect ratio are padded, and get other scores."""
    max_drop: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    """Largest loss of mAP against the student on the validation split at which a file passes, in points (100 x mAP).
    Absent: 0.05 for fp32 files, 0.5 for `onnx-int8`."""
    calibration_images: Annotated[int, Field(ge=1, le=1000)] = 64
    """Number of training images that the ranges of the activations of `onnx-int8` are measured on."""

    @model_validator(mode="after")
    def _reject_repeated_formats(self) -> "ExportSettings":
        if len(set(self.formats)) < len(self.formats):
            raise ValueError("`formats` names a format twice")
        return self


class Resources(Spec):
    """The hosts, devices and processes of a job."""

    nodes: Annotated[int, Field(ge=1, le=64)] = 1
    """Number of hosts that train together, with as many `devices` or `processes` each."""
    devices: Annotated[int, Field(ge=0, le=64)] | None = None
    """Number of GPUs of a host; each has a process that trains on its share of every batch. 0: the CPU. Absent: one GPU
    if the host has any, otherwise the CPU."""
    processes: Annotated[int, Field(ge=1, le=16)] = 1
    """Number of processes on the CPU of a host; each trains on its share of every batch."""
    loader_workers: Annotated[int, Field(ge=0, le=32)] | None = None
    """Processes that read images, for each training process. Absent: 4 with a GPU, otherwise 0."""
    max_minutes: Annotated[int, Field(ge=1)] | None = None
    """Time limit of training with its evaluations in minutes, over all attempts of the job; training then ends early
    and the student is evaluated. Absent: no limit."""

    @property
    def trainers_per_node(self) -> int:
        """Number of processes of a host that train."""
        return self.devices or self.processes

    @property
    def trainers(self) -> int:
        """Number of processes that train, on all hosts."""
        return self.nodes * self.trainers_per_node

    @model_validator(mode="after")
    def _reject_processes_beside_devices(self) -> "Resources":
        if self.devices and self.processes > 1:
            raise ValueError("`processes` applies to CPU training: each of the `devices` has one process")
        return self


QUANTIZE_SCHEDULE: dict[str, Any] = {
    "optimizer": {"name": "adamw", "learning_rate": 1e-4},
    "lr_schedule": {"name": "cosine"},
    "frozen_stages": 0,
}
"""Default schedule of kind `quantize`, besides its length: a tenth of AdamW's usual rate, for all layers."""
QUANTIZE_PARTS = ("optimizer", "lr_schedule")
"""Parts of that schedule whose fields are set one by one."""
QUANTIZE_EPOCHS = 3
QUANTIZE_KEEPS = {
    *("batch_size", "accumulate", "image_size", "train_sizes", "augmentation", "flip_prob"),
    *("keep_background_images", "seed"),
}
"""Fields of a schedule that `quantisation_of` keeps: what a student is trained on, not how long and how fast."""
QUANTIZE_DROPS = {"init_from_teacher", "warmup_steps"}
"""Fields of a distillation that `quantisation_of` drops: where the student starts from, and a length in steps."""
DISTILLATION_FIELDS = {"teacher", "method", "unlabelled", "distillation", "baseline"}
"""Fields of a distillation; a job without a teacher does not have them."""


class BaselineSeeds(Spec):
    """Several pairs of runs."""

    seeds: Annotated[int, Field(ge=1, le=32)]
    """Number of pairs; their seeds are `schedule.seed`, `schedule.seed` + 1 and so on."""


class JobSpec(Spec):
    """One job."""

    name: Name | None = None
    """Display name of the job."""
    kind: Kind = "distill"
    """`distill`: train `student` under `teacher`. `train`: train `student` without a teacher. `quantize`: train a
    finished student further, rounded as its INT8 file will be, so that its export to `onnx-int8` loses less; under
    `teacher`, if one is set. An absent `schedule` is 3 epochs of AdamW with a rate of 0.0001. `evaluate`: compute the
    COCO metrics of `student` on the validation split. `export`: write `student` as ONNX files, and compare them with it
    on the validation split."""
    method: Method = "frs"
    """Distillation method. `frs`: the paper's feature and logit term, under its richness mask; `feature` and `logit`:
    one of the two terms; `uniform` and `boxes`: both terms, under a uniform mask or inside the ground-truth boxes;
    `pkd`, `cwd`, `mgd`, `fgd`: the feature terms of these papers; `crosskd`: that paper's term of class scores and
    boxes; `none`: no distillation, but the report lists the teacher's metrics."""
    dataset: Name
    """Id or name of a registered data set."""
    unlabelled: Name | None = None
    """Id or name of a second data set. The distillation terms, and nothing else, use its training images without boxes:
    up to `batch_size` of them with each batch of the images of `dataset`."""
    teacher: DetectorRef | None = None
    """The teacher; required by kind `distill`."""
    student: DetectorRef
    """The student; for kind `quantize`, `{job: ID}` of the job that trained it, or a description whose `init` has its
    weights; for the kinds `evaluate` and `export`, the detector to evaluate or to export."""
    schedule: Schedule = Schedule()
    """Training schedule."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """Evaluation settings."""
    distillation: Distillation = Distillation()
    """Distillation settings."""
    baseline: StrictBool | BaselineSeeds = False
    """Whether to train the baseline too: the same student, seed and schedule without a teacher, as a separate job. The
    report compares the two. `{seeds: n}` trains n pairs of runs; the report then covers the variation between seeds."""
    export: ExportSettings = ExportSettings()
    """Settings of kind `export`."""
    resources: Resources = Resources()
    """Devices and processes."""
    priority: Priority = 0
    """Priority in the queue; higher values start first. `PATCH /jobs/{id}` changes it. The engine ignores it."""
    max_invalid_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Maximum fraction of the data set's images that may have issues; these images are excluded."""
    tags: Tags = ()
    """Tags, for filters."""
    metadata: Annotated[Metadata, Field(max_length=32)] = {}
    """Key-value pairs that are stored with the job and not interpreted."""

    @model_validator(mode="before")
    @classmethod
    def _set_schedule_of_quantize(cls, fields: Any) -> Any:
        """Set what the schedule of kind `quantize` leaves open."""
        if not isinstance(fields, dict) or fields.get("kind") != "quantize":
            return fields
        given = _dump_given(fields.get("schedule", {}))
        if not isinstance(given, dict):
            return fields
        length = {} if given.get("epochs") or given.get("max_steps") else {"epochs": QUANTIZE_EPOCHS}
        parts = {name: _complete_part(QUANTIZE_SCHEDULE[name], given.get(name, {})) for name in QUANTIZE_PARTS}
        return fields | {"schedule": QUANTIZE_SCHEDULE | given | length | parts}

    @model_validator(mode="after")
    def _check_consistency(self) -> "JobSpec":
        if self.kind == "distill" and self.teacher is None:
            raise ValueError("kind `distill` needs a `teacher`; use kind `train` for a student without one")
        if self.pairs and self.schedule.seed + self.pairs > 2**32:
            raise ValueError("`schedule.seed` is too large for this number of seeds")
        if self.kind not in ("distill", "quantize") and self.teacher is not None:
            raise ValueError(f"`teacher` belongs to the kinds `distill` and `quantize`, not `{self.kind}`")
        if self.kind != "distill" and self.baseline:
            raise ValueError(f"`baseline` belongs to kind `distill`, not `{self.kind}`")
        self._reject_unused_fields()
        self._check_method()
        if self.trains and self.schedule.batch_size % self.resources.trainers:
            raise ValueError(
                f"`schedule.batch_size`, {self.schedule.batch_size}, is split over {self.resources.trainers} processes:"
                " it must be divisible by their number"
            )
        if self.kind == "quantize":
            self._check_quantized()
        elif self.trains and not isinstance(self.student, ConfigDetector | DescribedDetector):
            raise ValueError(
                "`student` must be a description (`config` or `architecture`); use `init` to start it from weights"
            )
        return self

    def _check_quantized(self) -> None:
        """Require a trained student and fp32."""
        source = getattr(self.student, "init", self.student)
        if not isinstance(source, DetectorOfJob | InitFromJob | InitFromDetector | InitFromFile):
            raise ValueError(
                "kind `quantize` needs a trained student: `student: {job: ID}`, or its description with "
                "`init: {job: ID}`, `{detector: NAME}` or `{weights: FILE}`"
            )
        if self.schedule.precision not in ("auto", "fp32"):
            raise ValueError("kind `quantize` trains in fp32: remove `schedule.precision`")

    def _reject_unused_fields(self) -> None:
        distils = self.method != "frs" or any(map(self.distillation.sets, Distillation.model_fields))
        if self.teacher is None and distils:
            raise ValueError("`method` and `distillation` need a `teacher`")
        if not self.trains and self.resources.max_minutes is not None:
            raise ValueError(f"`resources.max_minutes` ends training; kind `{self.kind}` does not train")
        if self.kind == "export" and self.resources.trainers > 1:
            raise ValueError(
                "kind `export` runs in one process: remove `resources.nodes`, `resources.devices` and "
                "`resources.processes`"
            )
        if self.kind != "export" and self.export != ExportSettings():
            raise ValueError(f"`export` belongs to kind `export`, not `{self.kind}`")
        if self.trains and self.schedule.frozen_stages and getattr(self.student, "init", None) == "random":
            raise ValueError("`schedule.frozen_stages` would keep random weights: the student needs another `init`")
        init = getattr(self.student, "init", None)
        if self.distillation.init_from_teacher and isinstance(init, InitFromDetector | InitFromFile):
            raise ValueError("`distillation.init_from_teacher` would replace neck and head of the student's `init`")
        if self.schedule.augmentation == "strong" and self.distillation.teacher_cache == "on":
            raise ValueError("`teacher_cache: on` needs equal images in every epoch: use `augmentation: light`")
        if self.method == "none" and self.distillation.teacher_cache == "on":
            raise ValueError("method `none` has no use for `teacher_cache`")
        if self.terms.needs_boxes and self.unlabelled:
            name = "mask `boxes`" if self.terms.mask == "boxes" else f"method `{self.method}`"
            raise ValueError(f"{name} needs boxes, and `unlabelled` images have none")
        if self.terms.mask == "boxes" and self.schedule.keep_background_images:
            raise ValueError("mask `boxes` needs boxes, and those of `schedule.keep_background_images` have none")

    def _check_method(self) -> None:
        terms, weights = self.terms.names, self.distillation.weights
        if terms and not any(weights[term] for term in terms):
            raise ValueError(f"method `{self.method}` has only the {terms[0]} term, and its weight is 0")
        unused = [
            f"{name}_weight" for name, weight in weights.items() if name not in terms and weight not in ("auto", 0)
        ]
        if unused:
            raise ValueError(f"method `{self.method}` has no use for {' and '.join(unused)}")
        if self.unlabelled and (self.teacher is None or not terms):
            raise ValueError("`unlabelled` images need a `teacher` and a method other than `none`")
        self._check_mask_and_distance()
        self._check_calibration_fields()

    def _check_mask_and_distance(self) -> None:
        terms, distillation = self.terms.names, self.distillation
        if distillation.mask and not terms:
            raise ValueError(f"method `{self.method}` has no use for `mask`")
        for name in ("distance", "adapter"):
            if distillation.sets(name) and not ("feature" in terms and distillation.feature_weight != 0):
                raise ValueError(f"`{name}` has no effect: there is no feature term; remove `{name}`")
        if self.terms.module:
            self._reject_fields_beside_a_module()
        if distillation.feature_weight == "paper" and (
            self.terms.distance != "squared" or self.terms.adapter == "masked"
        ):
            raise ValueError(
                "the paper's feature weight holds for distance `squared` and a convolution as adapter; use `auto` or a "
                "number"
            )

    def _reject_fields_beside_a_module(self) -> None:
        distillation = self.distillation
        for name in ("mask", "distance"):
            if getattr(distillation, name):
                raise ValueError(f"method `{self.method}` has a term of its own: remove `{name}`")
        for term in self.terms.names:
            if distillation.weights[term] == "paper":
                raise ValueError(f"the paper has no {term} weight for method `{self.method}`; use `auto` or a number")

    def _check_calibration_fields(self) -> None:
        """Reject fields that only `auto` weights use if no term has one."""
        distillation, terms = self.distillation, self.terms.names
        auto = [term for term in terms if distillation.weights[term] == "auto"]
        for term in distillation.ratios:
            if distillation.sets(f"{term}_ratio") and term not in auto:
                raise ValueError(
                    f"`{term}_ratio` has no effect: the {term} term is absent or its weight is a number; remove it or "
                    f"set `{term}_weight: auto`"
                )
        if not auto and (distillation.weight_schedule == "adaptive" or distillation.recalibrate):
            raise ValueError("`weight_schedule: adaptive` and `recalibrate` need a weight that is `auto`")
        if not terms and distillation.weight_schedule != "constant":
            raise ValueError(f"method `{self.method}` has no use for `weight_schedule`")

    @property
    def trains(self) -> bool:
        """Whether the job trains its student."""
        return self.kind in ("distill", "train", "quantize")

    @property
    def terms(self) -> MethodTerms:
        """The terms of the method, with the mask, distance and adapter that `distillation` sets."""
        return self.distillation.terms(self.method)

    @property
    def distils_logits(self) -> bool:
        """Whether the student imitates the teacher's class logits."""
        return "logit" in self.terms.names and self.distillation.logit_weight != 0

    @property
    def pairs(self) -> int:
        """Number of student-baseline pairs; 0 without a baseline."""
        return self.baseline.seeds if isinstance(self.baseline, BaselineSeeds) else int(self.baseline)


def baseline_of(spec: JobSpec, number: int = 0) -> JobSpec:
    """Return the baseline of pair `number`: same student, data, schedule and seed, no teacher."""
    fields = spec.model_dump(exclude=DISTILLATION_FIELDS)
    return JobSpec.model_validate(fields | {"kind": "train"} | _name_and_seed(spec, "-baseline", number))


def seed_variant(spec: JobSpec, number: int) -> JobSpec:
    """Return the distilled student of pair `number` as a job without a baseline."""
    return JobSpec.model_validate(spec.model_dump() | {"baseline": False} | _name_and_seed(spec, "", number))


def quantisation_of(spec: JobSpec, job_id: str) -> JobSpec:
    """Return the job that quantizes the student of `spec`, which job `job_id` trained: same data, images and teacher.

    A source without distillation, such as one of kind `train`, gives a job without a teacher.
    """
    kept = {"dataset", "evaluation", "max_invalid_fraction"} | (
        DISTILLATION_FIELDS - {"baseline"} if spec.teacher else set()
    )
    fields = spec.model_dump(mode="json", include=kept, exclude={"distillation": QUANTIZE_DROPS})
    schedule = spec.schedule.model_dump(mode="json", include=QUANTIZE_KEEPS)
    resources = spec.resources.model_dump(mode="json", exclude={"max_minutes"})
    own = {"kind": "quantize", "name": _suffixed_name(spec, "-quantized"), "student": {"job": job_id}}
    return JobSpec.model_validate(fields | own | {"schedule": schedule, "resources": resources})


def comparison_of(spec: JobSpec) -> JobSpec:
    """Return the job that compares the runs of `spec` after they have ended."""
    fields = spec.model_dump(exclude=DISTILLATION_FIELDS)
    resources = spec.resources.model_copy(update={"max_minutes": None})
    return JobSpec.model_validate(
        fields | {"kind": "compare", "name": _suffixed_name(spec, "-comparison"), "resources": resources.model_dump()}
    )


def _name_and_seed(spec: JobSpec, suffix: str, number: int) -> dict[str, Any]:
    seed = spec.schedule.seed + number
    name = _suffixed_name(spec, suffix + (f"-seed{seed}" if spec.pairs > 1 and (suffix or number) else ""))
    return {"name": name, "schedule": spec.schedule.model_dump() | {"seed": seed}}


def _suffixed_name(spec: JobSpec, suffix: str) -> str | None:
    return spec.name and add_suffix(spec.name, suffix)


def _complete_part(defaults: dict[str, Any], given: Any) -> Any:
    """Return what is given with the defaults of the other fields.

    Another algorithm keeps its own defaults, and so does a schedule with milestones, which cosine annealing ignores.
    """
    fields = _dump_given(given)
    if not isinstance(fields, dict) or fields.get("name", defaults["name"]) != defaults["name"]:
        return given
    return given if fields.get("milestones") else defaults | fields


def _dump_given(value: Any) -> Any:
    """Return the fields that were set of a part of a spec; other values are returned as they are."""
    return value.model_dump(exclude_unset=True) if isinstance(value, Spec) else value
