"""The training schedule of a job spec: length, batches, optimizer, learning rate, images, and when to evaluate."""

from typing import Annotated, Literal

from pydantic import Field, StrictBool, model_validator

from frs.spec_model import Spec

Precision = Literal["auto", "fp32", "bf16", "fp16"]
OptimizerName = Literal["sgd", "adamw"]
LrScheduleName = Literal["step", "cosine"]


class Optimizer(Spec):
    """The optimizer."""

    name: OptimizerName | None = None
    """Optimizer algorithm. Absent: `adamw` if it is the base config's, as for `rtmdet`, otherwise `sgd`."""
    learning_rate: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] | None = None
    """Learning rate. Absent: for SGD the base config's rate scaled by `batch_size` x `accumulate` over the base
    config's batch size (64 for `yolox`, otherwise 16); for AdamW 0.001."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD; AdamW ignores it."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] | None = None
    """Weight decay. Absent: the base config's for SGD, 0.05 for AdamW."""


class LrSchedule(Spec):
    """Learning rate over the steps: a linear warm-up, then the schedule `name`."""

    name: LrScheduleName | None = None
    """`step`: divided by 10 after each milestone. `cosine`: cosine annealing to a hundredth of the initial rate.
    Absent: `cosine` if the base config anneals by cosine, as for `rtmdet` and `yolox`, and `milestones` is absent, too;
    otherwise `step`."""
    milestones: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    """Epochs after which the rate is divided by 10. Absent: the base config's, scaled to the length of
    the training."""
    warmup_steps: Annotated[int, Field(ge=0, le=100_000)] | Literal["auto"] = "auto"
    """Steps of the linear warm-up. `auto`: min(500, 5 % of the steps)."""


MIN_SIDE, MAX_SIDE = 32, 4096
"""Limits of the sides of an image size, in pixels."""
SideLength = Annotated[int, Field(ge=MIN_SIDE, le=MAX_SIDE)]
Size = tuple[SideLength, SideLength]


class Schedule(Spec):
    """The training schedule."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Passes over the training images. Absent: `max_steps` decides; without `max_steps`, the base config's number; for
    a described detector 300 with `rtmdet` and `yolox`, otherwise 12."""
    max_steps: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """Maximum number of training steps; training ends there, also within an epoch. With `epochs`, training ends at
    whichever comes first."""
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 16
    """Images in each forward and backward pass, over all processes."""
    accumulate: Annotated[int, Field(ge=1, le=256)] = 1
    """Batches in each training step. Their gradients are averaged, so that a step needs the memory of one batch and
    counts as one of `batch_size` x `accumulate` images. The last step of an epoch has the batches that remain."""
    optimizer: Optimizer = Optimizer()
    """Optimizer."""
    lr_schedule: LrSchedule = LrSchedule()
    """Learning-rate schedule."""
    max_grad_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 35.0
    """Gradients are clipped to this norm; null turns clipping off."""
    image_size: Size | None = None
    """[width, height] in pixels that images are scaled into; the aspect ratio is kept. Absent: the base config's size,
    640 x 640 for `rtmdet`, 416 x 416 for `yolox`, otherwise 1333 x 800; for the kinds `quantize`, `evaluate` and
    `export` and the check of the teacher, the size that the detector was trained at, if its weights file has it."""
    train_sizes: Annotated[tuple[Size, ...], Field(min_length=1, max_length=16)] | None = None
    """Sizes for training, [width, height] in pixels; one is drawn at random for each image. Absent: `image_size`; if it
    is absent, too, the base config's, for `yolox` the squares of 320 to 640 pixels."""
    augmentation: Literal["light", "strong"] = "light"
    """`light`: training images are resized and flipped. `strong`: they are also scaled by 0.5 to 2, cropped to
    `image_size` and distorted in colour; if the base config mixes images (RTMDet, YOLOX), also mixed by its mosaic and
    mixup, except in the last fifteenth of the epochs. The teacher sees the same images."""
    flip_prob: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Probability that a training image is flipped horizontally."""
    keep_background_images: StrictBool = False
    """Whether to train on images without annotations too, as mmdet does with `filter_empty_gt=False`. Images whose
    boxes are all crowds, ignored or otherwise unusable are left out in any case."""
    ema: Annotated[float, Field(ge=0.5, lt=1)] | None = None
    """Decay of an exponential moving average of the student's weights, for example 0.999, which is then what is
    evaluated and delivered. It covers about 1 / (1 - decay) steps: choose a fraction of the training. Absent: none."""
    frozen_stages: Annotated[int, Field(ge=0, le=7)] | None = None
    """Stages of the student's backbone that keep their initial weights, besides its stem; counted as mmdet's
    `frozen_stages`, up to 4 in a ResNet. 0: the whole backbone is trained. Absent: the base config's number, 1 for
    ResNets; 0 with `init: random`."""
    precision: Precision = "auto"
    """Floating-point precision of the forward passes. `auto`: bf16 on a GPU that supports it, otherwise fp32."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the run's random numbers."""
    evaluate_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between evaluations on the validation split. The end of training is always evaluated."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Evaluations in a row without a new highest mAP after which training ends. The last student is delivered and the
    best one is kept, as without `patience`. Absent: training does not end early."""
    checkpoint_every: Annotated[int, Field(ge=1)] | None = None
    """Steps between checkpoints. Absent: within an epoch, every 10 minutes. The end of an epoch always has one."""

    @property
    def images_per_step(self) -> int:
        """Number of images in a training step; the last step of an epoch may have fewer."""
        return self.batch_size * self.accumulate

    @property
    def averaged_steps(self) -> int:
        """Number of steps that the moving average covers, 1 / (1 - decay); 1 without one."""
        return round(1 / (1 - (self.ema or 0)))

    @model_validator(mode="after")
    def _reject_sizes_beside_scales(self) -> "Schedule":
        if self.augmentation == "strong" and self.train_sizes:
            raise ValueError("`augmentation: strong` scales images itself: use `image_size` instead of `train_sizes`")
        return self
