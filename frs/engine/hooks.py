"""The hook that connects mmengine's Runner to the engine: events, checkpoints, evaluations and stop requests."""

import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from mmengine.hooks import Hook
from torch import nn

from frs.detectors.weights import SavedFile
from frs.distillation.calibration import calibrate
from frs.distillation.distiller import Distiller, LossWeights
from frs.engine.checkpoints import Checkpoints, random_state, random_states_in, restore
from frs.errors import Diverged
from frs.evaluation.coco_scores import Scores
from frs.evaluation.detections import Rows
from frs.events import Metrics, Rewound
from frs.spec import Schedule
from frs.training import process_group
from frs.training.event_reporter import EventReporter
from frs.training.schedule import ResolvedSchedule
from frs.training.stop_request import Interrupted, StopRequest

CALIBRATION_BATCHES = 8
CHECKPOINT_SECONDS = 600
"""Interval between checkpoints within an epoch, in seconds, if the spec has no `checkpoint_every`."""


@dataclass
class LoopState:
    """The state of a run besides its tensors; part of every training checkpoint."""

    best: float | None = None
    """Highest mAP of the student so far."""
    weights: dict[str, Any] = field(default_factory=dict)
    """Calibrated weights of the terms; empty before calibration."""
    warnings: list[str] = field(default_factory=list)


@dataclass
class TrainingHook(Hook):
    """Emit metrics and progress, calibrate, evaluate, write checkpoints and stop on request.

    With several processes, all of them take each of these actions at the same step; rank 0 writes the files. Training
    raises Diverged if a loss is not finite, and Interrupted after an interruption.
    """

    priority = "VERY_LOW"

    resolved_schedule: ResolvedSchedule
    schedule: Schedule
    reporter: EventReporter
    stop: StopRequest
    checkpoints: Checkpoints
    evaluate: Callable[[nn.Module], tuple[Scores, Rows]]
    save_student: Callable[[nn.Module], SavedFile]

    def __post_init__(self) -> None:
        self.state = LoopState()
        self.ended_by: Literal["stopped_early", "time_limit"] | None = None
        """Reason why training ends before its last step."""
        self.detections: Rows = np.zeros((0, 7))
        """The student's detections in the last evaluation."""
        self.learning_rate = 0.0
        self.step_started = self.checkpointed = time.monotonic()

    def before_train(self, runner: Any) -> None:
        """Resume from the newest checkpoint, if there is one."""
        content = self.checkpoints.newest()
        if content is not None:
            self.state = LoopState(**restore(runner, content))
            self.reporter.add_earlier_warnings(self.state.warnings)
            self._warn_if_world_size_changed(len(random_states_in(content)))
            if self.state.weights:
                runner.model.weights = LossWeights(**self.state.weights)
                self.reporter.facts(weights=self.state.weights)
        process_group.broadcast_from_rank0(runner.model.state_dict().values())
        self.reporter.emit(Rewound(to_step=runner.iter))
        self._evaluate_if_due(runner)  # an epoch's checkpoint is written before its evaluation
        if runner.iter:
            self._sync_stop()
            runner.train_loop.ended = (
                self.ended_by is not None
            )  # an earlier attempt stopped here on request: only evaluate
        self.reporter.phase("training")
        self.step_started = self.checkpointed = time.monotonic()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Set the distiller's step, and calibrate its weights after the learning-rate warm-up."""
        self.learning_rate = float(runner.optim_wrapper.optimizer.param_groups[0]["lr"])
        if not isinstance(runner.model, Distiller):
            return
        runner.model.step = runner.iter
        calibration_step = min(self.resolved_schedule.warmup_steps, self.resolved_schedule.steps - 1)
        if not runner.model.calibrated and runner.iter >= calibration_step:
            self._calibrate(runner)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Emit the step's metrics, then stop or write a checkpoint if requested or due."""
        seconds = time.monotonic() - self.step_started
        images = len(data_batch["inputs"]) * process_group.world_size()
        self._emit_metrics(runner.iter, _mean_losses(outputs), images, seconds)
        interrupted, overdue = self._sync_stop()
        if interrupted:
            self._save_checkpoint(runner)
            raise Interrupted
        runner.train_loop.ended = self.ended_by is not None
        if self._checkpoint_due(runner.iter, overdue):
            self._save_checkpoint(runner)
        self.step_started = time.monotonic()

    def after_train_epoch(self, runner: Any) -> None:
        """Write a checkpoint, and evaluate if an evaluation is due."""
        self._save_checkpoint(runner)
        self._evaluate_if_due(runner)
        self.step_started = time.monotonic()

    def after_train(self, runner: Any) -> None:
        """Run the final evaluation."""
        self._evaluate(runner, last=True)

    def _sync_stop(self) -> tuple[bool, bool]:
        """Share stop requests between the processes and set `ended_by` alike in all of them.

        Returns whether any process is interrupted, and whether a checkpoint is overdue in any.
        """
        overdue = time.monotonic() - self.checkpointed > CHECKPOINT_SECONDS
        reason = self.stop.reason
        flags = process_group.all_reduce_max(
            reason == "interrupted", reason == "stopped_early", reason == "time_limit", overdue
        )
        interrupted, stopped, timed_out, overdue = (bool(flag) for flag in flags)
        self.ended_by = "stopped_early" if stopped else "time_limit" if timed_out else None
        return interrupted, overdue

    def _checkpoint_due(self, step: int, overdue: bool) -> bool:
        if step % self.resolved_schedule.steps_per_epoch == 0 or step == self.resolved_schedule.steps:
            return False  # `after_train_epoch` writes this one
        every = self.schedule.checkpoint_every
        return self.ended_by is not None or (step % every == 0 if every else overdue)

    def _evaluate_if_due(self, runner: Any) -> None:
        schedule = self.resolved_schedule
        epoch, steps_into_epoch = divmod(runner.iter, schedule.steps_per_epoch)
        at_epoch_end = epoch and not steps_into_epoch and runner.iter < schedule.steps
        if at_epoch_end and epoch % self.schedule.evaluate_every == 0:
            self._evaluate(runner, last=False)
            self.reporter.phase("training")

    def _calibrate(self, runner: Any) -> None:
        self.reporter.phase("calibrating")
        batches = runner.train_loop.dataloader(runner.iter, runner.iter + CALIBRATION_BATCHES)
        precision = partial(runner.optim_wrapper.optim_context, runner.model)
        weights = runner.model.weights = process_group.all_gather(calibrate(runner.model, batches, precision))[0]
        process_group.broadcast_from_rank0(runner.model.parameters())
        self.state.weights = vars(weights)
        values = ", ".join(f"{name} {weights.of(name):.3g}" for name in runner.model.terms)
        self.reporter.log(f"Weights calibrated at step {runner.iter}: {values}.")
        self.reporter.facts(weights=self.state.weights)
        self.reporter.phase("training")
        self.step_started = time.monotonic()

    def _emit_metrics(self, step: int, losses: dict[str, float], images: int, seconds: float) -> None:
        _check_finite(losses, step)
        values: dict[str, float | None] = {
            f"train/{name}": value if math.isfinite(value) else None for name, value in losses.items()
        }
        values["train/lr"] = self.learning_rate
        values["train/images_per_second"] = images / max(seconds, 1e-9)
        [values["train/memory_mb"]] = process_group.all_reduce_max(_peak_memory_mib())
        self.reporter.emit(Metrics(step=step, epoch=self.resolved_schedule.epoch_of(step), values=values))
        self.reporter.step(self.resolved_schedule, step, seconds, self.schedule.batch_size)

    def _evaluate(self, runner: Any, last: bool) -> None:
        self.reporter.phase("evaluating")
        student = runner.model.student if isinstance(runner.model, Distiller) else runner.model
        scores, self.detections = self.evaluate(student)
        step, epoch = runner.iter, self.resolved_schedule.epoch_of(runner.iter)
        values = {f"val/{name}": value for name, value in scores.metrics.items()}
        self.reporter.emit(Metrics(step=step, epoch=epoch, values=values))
        self.reporter.evaluation("student", scores, step=step, epoch=epoch, last=last)
        labels = self._update_labels(scores.mAP, last)
        if labels and process_group.rank() == 0:
            saved = self.save_student(student)
            self.reporter.checkpoint("student", saved, step=step, epoch=epoch, labels=labels, metrics=scores.metrics)

    def _update_labels(self, mAP: float, last: bool) -> list[str]:
        """Update the best mAP and return the labels of the evaluated student."""
        best = self.state.best is None or mAP > self.state.best
        self.state.best = mAP if best else self.state.best
        return [label for label, applies in {"best": best, "last": last}.items() if applies]

    def _save_checkpoint(self, runner: Any) -> None:
        self.state.warnings = self.reporter.warnings
        # each process has its own buffers; all continue with those of rank 0, which the file holds
        process_group.broadcast_from_rank0(runner.model.buffers())
        states = process_group.all_gather(random_state())
        if process_group.rank() == 0:
            saved = self.checkpoints.save(runner, vars(self.state), states)
            epoch = self.resolved_schedule.epoch_of(runner.iter)
            self.reporter.checkpoint("training", saved, step=runner.iter, epoch=epoch)
        self.checkpointed = time.monotonic()

    def _warn_if_world_size_changed(self, before: int) -> None:
        now = process_group.world_size()
        if now != before:
            message = f"The checkpoint is from a run with {before} process(es), this run has {now}"
            added = "; the added processes start with new random states" if now > before else ""
            self.reporter.log(f"{message}{added}.", "warning")


def _mean_losses(outputs: dict[str, torch.Tensor]) -> dict[str, float]:
    """Return all losses as means over the processes; they are copied from the device in one transfer."""
    values = torch.stack([value.detach().float().reshape(()) for value in outputs.values()])
    return dict(zip(outputs, process_group.all_reduce_mean(values).tolist(), strict=True))


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
