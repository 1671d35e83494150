"""The schedule with nothing left open: absent fields take the base config's values, epochs become steps."""

import math
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config, ConfigDict

from frs.errors import InvalidSpec
from frs.spec import Schedule
from frs.step_counts import count_steps

BASE_BATCH_SIZE = 16
"""Images a step that the base configs' learning rates are for."""
ADAMW_RATE, ADAMW_DECAY = 1e-3, 0.05
OPTIMIZER_STATE_TENSORS = {"sgd": 1, "adamw": 2}
"""Tensors that each keeps for every parameter."""


@dataclass(frozen=True)
class ResolvedSchedule:
    epochs: int
    steps: int
    steps_per_epoch: int
    warmup_steps: int
    milestones: tuple[int, ...]
    """In steps."""
    learning_rate: float
    weight_decay: float

    def epoch_of(self, step: int) -> int:
        """Epoch, from 1, in which `step` (from 1) lies; 0 before the first."""
        return math.ceil(step / self.steps_per_epoch)


def resolve_schedule(schedule: Schedule, base_config: Config, images: int) -> ResolvedSchedule:
    """The steps of `schedule` over a training set of so many images."""
    epochs = schedule.epochs or _base_epochs(base_config)
    if not epochs:
        raise InvalidSpec("The base config does not count in epochs.", "Set `schedule.epochs`.")
    counted = count_steps(schedule, epochs, images)
    optimizer = base_config.optim_wrapper.optimizer
    sgd = schedule.optimizer.name == "sgd"
    stock_batch = base_config.get("auto_scale_lr", {}).get("base_batch_size", BASE_BATCH_SIZE)
    rate = optimizer.lr * schedule.batch_size / stock_batch if sgd else ADAMW_RATE
    decay = optimizer.weight_decay if sgd else ADAMW_DECAY
    return ResolvedSchedule(
        epochs=counted.epochs,
        steps=counted.steps,
        steps_per_epoch=counted.per_epoch,
        warmup_steps=warmup(schedule.lr_schedule.warmup_steps, counted.steps),
        milestones=tuple(epoch * counted.per_epoch for epoch in _milestones(schedule, base_config, epochs)),
        learning_rate=schedule.optimizer.learning_rate or rate,
        weight_decay=decay if schedule.optimizer.weight_decay is None else schedule.optimizer.weight_decay,
    )


def warmup(asked: int | str, steps: int) -> int:
    """`auto` = min(500, 5 % of the steps)."""
    return int(asked) if asked != "auto" else min(500, math.ceil(steps / 20))


def optimizer_config(schedule: Schedule, plan: ResolvedSchedule) -> dict[str, Any]:
    common = {"lr": plan.learning_rate, "weight_decay": plan.weight_decay}
    if schedule.optimizer.name == "sgd":
        return {"type": "SGD", "momentum": schedule.optimizer.momentum, **common}
    return {"type": "AdamW", **common}


def scheduler_configs(schedule: Schedule, plan: ResolvedSchedule) -> list[dict[str, Any]]:
    """Mmengine parameter schedulers, counted in steps: a linear warm-up, then steps or a cosine to a hundredth."""
    warmup_steps = plan.warmup_steps if plan.warmup_steps > 1 else 0  # mmengine's LinearLR never ends after one step
    by_step = {"by_epoch": False}
    warm = {"type": "LinearLR", "start_factor": 0.001, "begin": 0, "end": warmup_steps, **by_step}
    if schedule.lr_schedule.name == "step":
        after = {"type": "MultiStepLR", "milestones": list(plan.milestones), "gamma": 0.1, **by_step}
    else:
        after = {
            "type": "CosineAnnealingLR",
            "begin": warmup_steps,
            "end": plan.steps,
            "eta_min_ratio": 0.01,
            **by_step,
        }
    return [*([warm] if warmup_steps else []), *([after] if warmup_steps < plan.steps else [])]


def base_dataset(base_config: Config) -> ConfigDict:
    """The base config's training set, without the wrappers that repeat it."""
    dataset = base_config.train_dataloader.dataset
    while "dataset" in dataset:
        dataset = dataset.dataset
    return dataset


def _base_epochs(base_config: Config) -> int:
    """Times the stock schedule sees every image; 0 where it counts in steps."""
    times, dataset = base_config.train_cfg.get("max_epochs", 0), base_config.train_dataloader.dataset
    while "dataset" in dataset:
        times, dataset = times * dataset.get("times", 1), dataset.dataset
    return int(times)


def _milestones(schedule: Schedule, base_config: Config, epochs: int) -> list[int]:
    if schedule.lr_schedule.milestones is not None:
        return list(schedule.lr_schedule.milestones)
    stepped = [s for s in base_config.param_scheduler if "milestones" in s]
    return sorted({max(1, round(milestone * epochs / s.end)) for s in stepped for milestone in s.milestones})
