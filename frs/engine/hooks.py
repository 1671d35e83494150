"""The hooks of the training loop, one per concern.

mmengine calls them in ascending order of `priority`; its hook for the learning rate has 70. With several processes, all
of them take each action at the same step; rank 0 writes the files.
"""

import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from statistics import geometric_mean
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseAveragedModel
from torch import nn

from frs.detectors.weights import SavedFile
from frs.distillation.calibration import calibrate
from frs.engine.checkpoints import Checkpoints, random_state, random_states_in, restore
from frs.errors import Diverged
from frs.evaluation.coco_scores import Scores
from frs.evaluation.detections import Rows
from frs.events import Metrics, Rewound
from frs.facts import LossWeights, RunFacts
from frs.training import process_group
from frs.training.event_reporter import EventReporter
from frs.training.stop_request import StopReason, StopRequest

CALIBRATION_BATCHES = 8
MAX_WEIGHT_CHANGE = 2.0
"""Largest factor by which an epoch changes an adaptive weight."""
CHECKPOINT_SECONDS = 600
"""Interval between checkpoints within an epoch, in seconds, if the spec has no `checkpoint_every`."""
STOP_REASONS: tuple[StopReason, ...] = ("interrupted", "stopped_early", "time_limit")
"""Reasons in order of precedence."""


@dataclass
class MetricsHook(Hook):
    """Emit the metrics and the progress of each step. Raises Diverged if a loss is not finite."""

    priority = 60

    images_per_step: int
    reporter: EventReporter

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Emit the step's metrics: the means over its batches."""
        step, seconds, schedule = runner.iter, runner.train_loop.step_seconds, runner.train_loop.resolved_schedule
        losses = _mean_losses(outputs)
        _check_finite(losses, step)
        values: dict[str, float | None] = {
            f"train/{name}": value if math.isfinite(value) else None for name, value in losses.items()
        }
        values["train/lr"] = float(runner.optim_wrapper.optimizer.param_groups[0]["lr"])
        images = sum(len(batch["inputs"]) for batch in data_batch) * process_group.world_size()
        values["train/images_per_second"] = images / max(seconds, 1e-9)
        [values["train/memory_mb"]] = process_group.all_reduce_max(_peak_memory_mib())
        self.reporter.emit(Metrics(step=step, epoch=schedule.epoch_of(step), values=values))
        self.reporter.step(schedule, step, seconds, self.images_per_step)


@dataclass
class AverageHook(Hook):
    """Keep the moving average of the student's weights."""

    priority = 75

    average: BaseAveragedModel
    student: nn.Module

    def before_train(self, runner: Any) -> None:
        """Let the loop evaluate and deliver the average, and the checkpoints contain it."""
        runner.train_loop.average = self.average

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Include the weights after this step."""
        self.average.update_parameters(self.student)


@dataclass
class ResumeHook(Hook):
    """Continue from the newest checkpoint, if there is one."""

    priority = 80

    checkpoints: Checkpoints
    reporter: EventReporter

    def before_train(self, runner: Any) -> None:
        """Restore the state of the loop, the model, the optimizer and the random generators."""
        content = self.checkpoints.newest()
        if content is not None:
            restore(runner, content)
            self.reporter.add_earlier_warnings(runner.train_loop.state.warnings)
            self._warn_if_world_size_changed(len(random_states_in(content)))
        process_group.broadcast_from_rank0(runner.model.state_dict().values())
        self.reporter.emit(Rewound(to_step=runner.iter))

    def _warn_if_world_size_changed(self, before: int) -> None:
        now = process_group.world_size()
        if now != before:
            message = f"The checkpoint is from a run with {before} process(es), this run has {now}"
            added = "; the added processes start with new random states" if now > before else ""
            self.reporter.log(f"{message}{added}.", "warning")


@dataclass
class CalibrationHook(Hook):
    """Calibrate the weights after the learning-rate warm-up and, with `recalibrate`, again at a quarter of the run."""

    priority = 81

    recalibrate: bool
    reporter: EventReporter

    def before_train(self, runner: Any) -> None:
        """Set the weights that an earlier attempt has calibrated."""
        if runner.train_loop.state.weights is not None:
            self._set_weights(runner, runner.train_loop.state.weights)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Calibrate if it is due."""
        schedule = runner.train_loop.resolved_schedule
        if not runner.model.calibrated:
            due = runner.iter >= schedule.calibration_step
        else:
            due = self.recalibrate and runner.model.weights.calibrated_at < schedule.steps // 4 <= runner.iter
        if due:
            self._calibrate(runner)

    def _calibrate(self, runner: Any) -> None:
        self.reporter.phase("calibrating")
        batches = islice(
            runner.train_loop.dataloader(runner.iter, runner.iter + CALIBRATION_BATCHES), CALIBRATION_BATCHES
        )
        precision = partial(runner.optim_wrapper.optim_context, runner.model)
        weights = process_group.all_gather(calibrate(runner.model, batches, runner.iter, precision))[0]
        process_group.broadcast_from_rank0(runner.model.parameters())
        values = ", ".join(f"{name} {weights.of(name):.3g}" for name in runner.model.terms)
        self.reporter.log(f"Weights calibrated at step {runner.iter}: {values}.")
        runner.train_loop.state.shares = {}  # of the weights before this calibration
        self._set_weights(runner, weights)
        self.reporter.phase("training")

    def _set_weights(self, runner: Any, weights: LossWeights) -> None:
        runner.model.weights = runner.train_loop.state.weights = weights
        self.reporter.facts(RunFacts(weights=weights))


@dataclass
class WeightAdjustmentHook(Hook):
    """Multiply the `auto` weights at the end of an epoch so that the terms approach their target gradient ratios.

    An epoch changes a weight by a factor of at most `MAX_WEIGHT_CHANGE`. Its ratio is the geometric mean of those that
    the diagnosis measured in it after the ramp; an epoch without a diagnosis changes nothing.
    """

    priority = 81  # after CalibrationHook, which is registered first, and before the checkpoint

    reporter: EventReporter

    def before_train(self, runner: Any) -> None:
        """Adjust the weights of a checkpoint that was written at the end of an epoch, before their adjustment."""
        if runner.train_loop.ends_epoch:
            self.after_train_epoch(runner)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Collect the ratios of this step, if it was diagnosed after the ramp."""
        distiller, step = runner.model, runner.iter - 1
        if not distiller.calibrated or distiller.schedule.in_ramp(step, distiller.weights.ramp_from):
            return
        for name in distiller.terms:
            measured = [logs[f"share_{name}"] for logs in outputs if f"share_{name}" in logs]
            if measured and distiller.fixed_weights.of(name) is None:
                share = process_group.all_reduce_mean(torch.stack(measured).mean().reshape(1)).item()
                runner.train_loop.state.shares.setdefault(name, []).append(share)

    def after_train_epoch(self, runner: Any) -> None:
        """Adjust the weights."""
        distiller, state = runner.model, runner.train_loop.state
        changes = {
            name: distiller.weights.of(name) * _bounded_change(distiller.ratios[name], measured)
            for name, measured in state.shares.items()
        }
        state.shares = {}
        if changes:
            distiller.weights = state.weights = replace(distiller.weights, **changes)
            self.reporter.facts(RunFacts(weights=state.weights))


@dataclass
class StopHook(Hook):
    """End the loop on request, or when its time is over."""

    priority = 82

    stop: StopRequest
    max_minutes: float | None
    counted_at: float = field(default_factory=time.monotonic)
    """Time until which `LoopState.seconds` counts."""

    def before_train(self, runner: Any) -> None:
        """End a resumed run at once if the earlier attempt stopped here on request: it only evaluates."""
        self.counted_at = time.monotonic()
        if runner.iter:
            self._share(runner.train_loop)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """End after this step if a stop was requested."""
        now = time.monotonic()
        runner.train_loop.state.seconds += now - self.counted_at
        self.counted_at = now
        self._share(runner.train_loop)

    def _share(self, loop: Any) -> None:
        """Share the reason between the processes, so that all of them end alike."""
        is_over = self.max_minutes is not None and loop.state.seconds > 60 * self.max_minutes
        reason = self.stop.reason or ("time_limit" if is_over else None)
        flags = process_group.all_reduce_max(*(reason == other for other in STOP_REASONS))
        loop.ended_by = next((other for other, flag in zip(STOP_REASONS, flags, strict=True) if flag), None)


@dataclass
class CheckpointHook(Hook):
    """Write training checkpoints: every `every` steps or 10 min, at the end of an epoch and when the loop ends."""

    priority = 83

    every: int | None
    checkpoints: Checkpoints
    reporter: EventReporter
    saved_at: float = field(default_factory=time.monotonic)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Write a checkpoint if one is due."""
        if self._is_due(runner.train_loop):
            self._save(runner)

    def after_train_epoch(self, runner: Any) -> None:
        """Write a checkpoint."""
        self._save(runner)

    def _is_due(self, loop: Any) -> bool:
        if loop.ended_by == "interrupted":
            return True
        if loop.ends_epoch:
            return False  # `after_train_epoch` writes this one
        if loop.ended_by or self.every:
            return bool(loop.ended_by or loop.iter % self.every == 0)
        [overdue] = process_group.all_reduce_max(time.monotonic() - self.saved_at > CHECKPOINT_SECONDS)
        return bool(overdue)

    def _save(self, runner: Any) -> None:
        runner.train_loop.state.warnings = self.reporter.warnings
        # each process has its own buffers; all continue with those of rank 0, which the file holds
        process_group.broadcast_from_rank0(runner.model.buffers())
        states = process_group.all_gather(random_state())
        if process_group.rank() == 0:
            saved = self.checkpoints.save(runner, states)
            epoch = runner.train_loop.resolved_schedule.epoch_of(runner.iter)
            self.reporter.checkpoint("training", saved, step=runner.iter, epoch=epoch)
        self.saved_at = time.monotonic()


@dataclass
class EvaluationHook(Hook):
    """Evaluate the student every `every` epochs and save its best weights."""

    priority = 84

    every: int
    evaluate_student: Callable[[nn.Module], tuple[Scores, Rows]]
    save_student: Callable[[nn.Module], SavedFile]
    reporter: EventReporter

    def before_train(self, runner: Any) -> None:
        """Evaluate the epoch of the checkpoint, which is written before its evaluation."""
        self.after_train_epoch(runner)
        self.reporter.phase("training")

    def after_train_epoch(self, runner: Any) -> None:
        """Evaluate if it is due; the end of training is evaluated by `evaluate`."""
        loop = runner.train_loop
        at_epoch_end = loop.iter and loop.ends_epoch and loop.iter < loop.resolved_schedule.steps
        if at_epoch_end and loop.epoch % self.every == 0:
            self.evaluate(runner, last=False)
            self.reporter.phase("training")

    def evaluate(self, runner: Any, last: bool) -> Rows:
        """Evaluate the student, save its weights if they are the best or the last, and return its detections."""
        self.reporter.phase("evaluating")
        student = runner.train_loop.student
        scores, detections = self.evaluate_student(student)
        step, epoch = runner.iter, runner.train_loop.resolved_schedule.epoch_of(runner.iter)
        values = {f"val/{name}": value for name, value in scores.metrics.items()}
        self.reporter.emit(Metrics(step=step, epoch=epoch, values=values))
        self.reporter.evaluation("student", scores, step=step, epoch=epoch, last=last)
        state = runner.train_loop.state
        is_best = state.best is None or scores.mAP > state.best
        state.best = scores.mAP if is_best else state.best
        state.evaluations_since_best = 0 if is_best else state.evaluations_since_best + 1
        labels = [label for label, applies in {"best": is_best, "last": last}.items() if applies]
        if labels and process_group.rank() == 0:
            saved = self.save_student(student)
            self.reporter.checkpoint("student", saved, step=step, epoch=epoch, labels=labels, metrics=scores.metrics)
        return detections


@dataclass
class PatienceHook(Hook):
    """End the loop after `patience` evaluations without a new highest mAP."""

    priority = 85

    patience: int
    reporter: EventReporter

    def before_train(self, runner: Any) -> None:
        """End a resumed run at once if the evaluation of its checkpoint was the last."""
        self.after_train_epoch(runner)

    def after_train_epoch(self, runner: Any) -> None:
        """End if the student has not improved for long enough."""
        loop = runner.train_loop
        if loop.state.evaluations_since_best < self.patience:
            return
        loop.ended_by = loop.ended_by or "no_improvement"
        self.reporter.warn(
            f"Training ended at step {loop.iter} of {loop.resolved_schedule.steps}: {self.patience} evaluations did "
            f"not raise the mAP above {loop.state.best:.4f}. The last student is delivered; the best one is kept."
        )


def _bounded_change(target: float, measured: list[float]) -> float:
    """Return target / geometric mean of `measured`, within 1 / `MAX_WEIGHT_CHANGE` and `MAX_WEIGHT_CHANGE`."""
    positive = [share for share in measured if 0 < share < math.inf]
    change = target / geometric_mean(positive) if positive else 1.0
    return min(MAX_WEIGHT_CHANGE, max(1 / MAX_WEIGHT_CHANGE, change))


def _mean_losses(outputs: list[dict[str, torch.Tensor]]) -> dict[str, float]:
    """Return all losses as means over batches and processes; they are copied from the device in one transfer."""
    by_batch = [torch.stack([value.detach().float().reshape(()) for value in logs.values()]) for logs in outputs]
    values = process_group.all_reduce_mean(torch.stack(by_batch).mean(0))
    return dict(zip(outputs[0], values.tolist(), strict=True))


def _check_finite(losses: dict[str, float], step: int) -> None:
    """Raise Diverged naming the losses that are not finite."""
    checked = {name: value for name, value in losses.items() if "loss" in name or name.startswith("distill_")}
    not_finite = [name for name, value in checked.items() if not math.isfinite(value)]
    if not_finite:
        terms = [name for name in not_finite if name != "loss"] or not_finite
        raise Diverged(f"{', '.join(terms)} became {losses[terms[0]]} at step {step}.")


def _peak_memory_mib() -> float:
    """Return the peak memory in MiB: of the GPU if there is one, otherwise of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
