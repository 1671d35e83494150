"""Resolve a schedule: absent fields take the base config's values, and epochs are converted to steps."""

import math
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config, ConfigDict

from frs.errors import InvalidSpec
from frs.schedule_spec import LrScheduleName, OptimizerName, Schedule
from frs.step_counts import StepCounts, count_steps

BASE_BATCH_SIZE = 16
"""Batch size for which a base config's learning rate holds, unless the config has `auto_scale_lr`."""
ADAMW_RATE, ADAMW_DECAY = 1e-3, 0.05
SGD_RATE, SGD_DECAY = 1e-2, 1e-4
"""Values of SGD for a base config that trains with another optimizer."""
OPTIMIZER_STATE_TENSORS: dict[OptimizerName, int] = {"sgd": 1, "adamw": 2}
"""Number of state tensors per parameter, by optimizer."""


@dataclass(frozen=True)
class ResolvedSchedule:
    """A schedule in which every value is set."""

    epochs: int
    steps: int
    steps_per_epoch: int
    warmup_steps: int
    milestones: tuple[int, ...]
    """Steps after which the learning rate drops to a tenth."""
    optimizer: OptimizerName
    lr_schedule: LrScheduleName
    learning_rate: float
    weight_decay: float

    @property
    def calibration_step(self) -> int:
        """Number of steps before `auto` weights are calibrated: those of the warm-up, but fewer than the run's."""
        return min(self.warmup_steps, self.steps - 1)

    def epoch_of(self, step: int) -> int:
        """Return the epoch (from 1) that contains `step` (from 1); 0 for step 0."""
        return math.ceil(step / self.steps_per_epoch)


def resolve_schedule(schedule: Schedule, base_config: Config, images: int) -> ResolvedSchedule:
    """Return `schedule` in steps for a training set of `images` images.

    Raises InvalidSpec if neither spec nor base config has a length.
    """
    counts = count_steps(schedule, _base_epochs(base_config), images)
    if counts is None:
        raise InvalidSpec("The base config has no number of epochs.", "Set `schedule.epochs` or `schedule.max_steps`.")
    name = schedule.optimizer.name or _base_optimizer(base_config)
    rate, decay = _sgd_values(schedule, base_config) if name == "sgd" else (ADAMW_RATE, ADAMW_DECAY)
    return ResolvedSchedule(
        epochs=counts.epochs,
        steps=counts.steps,
        steps_per_epoch=counts.per_epoch,
        warmup_steps=resolve_warmup_steps(schedule.lr_schedule.warmup_steps, counts.steps),
        milestones=_milestone_steps(schedule, base_config, counts),
        optimizer=name,
        lr_schedule=schedule.lr_schedule.name or _lr_schedule(schedule, base_config),
        learning_rate=schedule.optimizer.learning_rate or rate,
        weight_decay=decay if schedule.optimizer.weight_decay is None else schedule.optimizer.weight_decay,
    )


def resolve_warmup_steps(configured: int | str, steps: int) -> int:
    """Return the number of warm-up steps: `auto` is 5 % of the steps, at most 500."""
    return int(configured) if configured != "auto" else min(500, math.ceil(steps / 20))


def optimizer_config(schedule: Schedule, resolved: ResolvedSchedule) -> dict[str, Any]:
    """Return the config of the torch optimizer."""
    common = {"lr": resolved.learning_rate, "weight_decay": resolved.weight_decay}
    if resolved.optimizer == "sgd":
        return {"type": "SGD", "momentum": schedule.optimizer.momentum, **common}
    return {"type": "AdamW", **common}


def scheduler_configs(resolved: ResolvedSchedule) -> list[dict[str, Any]]:
    """Return the configs of mmengine's parameter schedulers, in steps.

    A linear warm-up from a thousandth of the learning rate, then either a drop to a tenth at each milestone or a cosine
    down to a hundredth.
    """
    # mmengine's LinearLR does not end if it has a single step
    warmup_steps = resolved.warmup_steps if resolved.warmup_steps > 1 else 0
    by_step = {"by_epoch": False}
    warmup = {"type": "LinearLR", "start_factor": 0.001, "begin": 0, "end": warmup_steps, **by_step}
    if resolved.lr_schedule == "step":
        main = {"type": "MultiStepLR", "milestones": list(resolved.milestones), "gamma": 0.1, **by_step}
    else:
        main = {
            "type": "CosineAnnealingLR",
            "begin": warmup_steps,
            "end": resolved.steps,
            "eta_min_ratio": 0.01,
            **by_step,
        }
    return [*([warmup] if warmup_steps else []), *([main] if warmup_steps < resolved.steps else [])]


def base_dataset(base_config: Config) -> ConfigDict:
    """Return the config of the base config's training set, without wrappers; of several sets, the first."""
    dataset = base_config.train_dataloader.dataset
    while "dataset" in dataset or "datasets" in dataset:
        dataset = dataset.dataset if "dataset" in dataset else dataset.datasets[0]
    return dataset


def _base_optimizer(base_config: Config) -> OptimizerName:
    return "adamw" if base_config.optim_wrapper.optimizer.type == "AdamW" else "sgd"


def _lr_schedule(schedule: Schedule, base_config: Config) -> LrScheduleName:
    anneals = any("Cosine" in scheduler.type for scheduler in base_config.param_scheduler)
    return "cosine" if anneals and schedule.lr_schedule.milestones is None else "step"


def _sgd_values(schedule: Schedule, base_config: Config) -> tuple[float, float]:
    """Return learning rate and weight decay of SGD for the images of a step."""
    optimizer, base_batch_size = base_config.optim_wrapper.optimizer, BASE_BATCH_SIZE
    rate, decay = SGD_RATE, SGD_DECAY
    if optimizer.type == "SGD":
        rate, decay = optimizer.lr, optimizer.get("weight_decay", 0.0)
        base_batch_size = base_config.get("auto_scale_lr", {}).get("base_batch_size", BASE_BATCH_SIZE)
    return rate * schedule.images_per_step / base_batch_size, decay


def _base_epochs(base_config: Config) -> int:
    """Return how often the base config's schedule trains on every image; 0 if its length is in steps."""
    times, dataset = base_config.train_cfg.get("max_epochs", 0), base_config.train_dataloader.dataset
    while "dataset" in dataset:
        times, dataset = times * dataset.get("times", 1), dataset.dataset
    return int(times)


def _milestone_steps(schedule: Schedule, base_config: Config, counts: StepCounts) -> tuple[int, ...]:
    """Return the milestones in steps; those of the base config are scaled to the configured length.

    That length is `epochs`, which `max_steps` may cut short, or `max_steps` alone.
    """
    if schedule.lr_schedule.milestones is not None:
        return tuple(epoch * counts.per_epoch for epoch in schedule.lr_schedule.milestones)
    by_steps = schedule.max_steps is not None and schedule.epochs is None
    length, unit = (counts.steps, 1) if by_steps else (schedule.epochs or counts.epochs, counts.per_epoch)
    stepped = [s for s in base_config.param_scheduler if "milestones" in s]
    base_length = base_config.train_cfg.get("max_epochs") or base_config.train_cfg.get("max_iters")
    scaled = {
        max(1, round(milestone * length / s.get("end", base_length))) for s in stepped for milestone in s.milestones
    }
    return tuple(milestone * unit for milestone in sorted(scaled))
