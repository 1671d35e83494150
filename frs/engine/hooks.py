"""The one hook between mmengine's Runner and us: its events become ours, and our wishes reach it."""

import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from mmengine.hooks import Hook
from torch import nn

from frs.detectors.weights import SavedFile
from frs.distillation.calibration import calibrate
from frs.distillation.distiller import Distiller, LossWeights
from frs.engine.checkpoints import Checkpoints, random_state, random_states_in, restore
from frs.errors import Diverged
from frs.evaluation.coco_scores import Scores
from frs.events import Metrics, Rewound
from frs.spec import Schedule
from frs.training import process_group
from frs.training.event_reporter import EventReporter
from frs.training.schedule import ResolvedSchedule
from frs.training.stop_request import Interrupted, StopRequest

CALIBRATION_BATCHES = 8
CHECKPOINT_SECONDS = 600
"""Between checkpoints within an epoch, where the spec does not say."""


@dataclass
class LoopState:
    """What a run must remember beside tensors; part of every training checkpoint."""

    best: float | None = None
    """Highest mAP of the student so far."""
    weights: dict[str, Any] = field(default_factory=dict)
    """The terms' weights once calibrated."""
    warnings: list[str] = field(default_factory=list)


@dataclass
class TrainingHook(Hook):
    """Emits metrics, progress, evaluations and checkpoints; calibrates, evaluates, stops. Raises Diverged, Interrupted.

    Several processes do all of it in step; rank 0 writes the files.
    """

    priority = "VERY_LOW"

    plan: ResolvedSchedule
    schedule: Schedule
    reporter: EventReporter
    stop: StopRequest
    checkpoints: Checkpoints
    evaluate: Callable[[nn.Module], Scores]
    save_student: Callable[[nn.Module], SavedFile]

    def __post_init__(self) -> None:
        self.memory = LoopState()
        self.ended_by: Literal["stopped_early", "time_limit"] | None = None
        """Why training ended before its last step."""
        self.learning_rate = 0.0
        self.step_started = self.checkpointed = time.monotonic()

    def before_train(self, runner: Any) -> None:
        content = self.checkpoints.newest()
        if content is not None:
            self.memory = LoopState(**restore(runner, content))
            self.reporter.restore_warnings(self.memory.warnings)
            self._note_other_processes(len(random_states_in(content)))
            if self.memory.weights:
                runner.model.weights = LossWeights(**self.memory.weights)
                self.reporter.facts(weights=self.memory.weights)
        process_group.broadcast_from_rank0(runner.model.state_dict().values())
        self.reporter.emit(Rewound(to_step=runner.iter))
        self._evaluate_if_due(runner)  # the checkpoint of an epoch's end is written before its evaluation
        if runner.iter:
            self._agree()
            runner.train_loop.ended = self.ended_by is not None  # an attempt before this one got as far as it was to
        self.reporter.phase("training")
        self.step_started = self.checkpointed = time.monotonic()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.learning_rate = float(runner.optim_wrapper.optimizer.param_groups[0]["lr"])
        if not isinstance(runner.model, Distiller):
            return
        runner.model.step = runner.iter
        if not runner.model.calibrated and runner.iter >= min(self.plan.warmup_steps, self.plan.steps - 1):
            self._calibrate(runner)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        seconds = time.monotonic() - self.step_started
        self._tell(runner.iter, _numbers(outputs), len(data_batch["inputs"]) * process_group.world_size(), seconds)
        interrupted, overdue = self._agree()
        if interrupted:
            self._save(runner)
            raise Interrupted
        runner.train_loop.ended = self.ended_by is not None
        if self._checkpoint_due(runner.iter, overdue):
            self._save(runner)
        self.step_started = time.monotonic()

    def after_train_epoch(self, runner: Any) -> None:
        self._save(runner)
        self._evaluate_if_due(runner)
        self.step_started = time.monotonic()

    def after_train(self, runner: Any) -> None:
        self._evaluate(runner, last=True)

    def _agree(self) -> tuple[bool, bool]:
        """Whether any process is interrupted, and whether one has not written a checkpoint for long.

        Where one is to end early, all are: `ended_by` says why.
        """
        overdue = time.monotonic() - self.checkpointed > CHECKPOINT_SECONDS
        why = self.stop.why
        told = process_group.all_reduce_max(why == "interrupted", why == "stopped_early", why == "time_limit", overdue)
        interrupted, stopped, timed_out, overdue = (bool(said) for said in told)
        self.ended_by = "stopped_early" if stopped else "time_limit" if timed_out else None
        return interrupted, overdue

    def _checkpoint_due(self, step: int, overdue: bool) -> bool:
        if step % self.plan.steps_per_epoch == 0 or step == self.plan.steps:
            return False  # there is one at the end of every epoch
        every = self.schedule.checkpoint_every
        return self.ended_by is not None or (step % every == 0 if every else overdue)

    def _evaluate_if_due(self, runner: Any) -> None:
        epoch, rest = divmod(runner.iter, self.plan.steps_per_epoch)
        if epoch and not rest and runner.iter < self.plan.steps and epoch % self.schedule.evaluate_every == 0:
            self._evaluate(runner, last=False)
            self.reporter.phase("training")

    def _calibrate(self, runner: Any) -> None:
        self.reporter.phase("calibrating")
        batches = runner.train_loop.dataloader(runner.iter, runner.iter + CALIBRATION_BATCHES)
        precision = partial(runner.optim_wrapper.optim_context, runner.model)
        weights = runner.model.weights = process_group.all_gather(calibrate(runner.model, batches, precision))[0]
        process_group.broadcast_from_rank0(runner.model.parameters())
        self.memory.weights = vars(weights)
        told = ", ".join(f"{name} {weights.of(name):.3g}" for name in runner.model.terms)
        self.reporter.log(f"Weights calibrated at step {runner.iter}: {told}.")
        self.reporter.facts(weights=self.memory.weights)
        self.reporter.phase("training")
        self.step_started = time.monotonic()

    def _tell(self, step: int, losses: dict[str, float], images: int, seconds: float) -> None:
        _check_finite(losses, step)
        values: dict[str, float | None] = {
            f"train/{name}": value if math.isfinite(value) else None for name, value in losses.items()
        }
        values["train/lr"] = self.learning_rate
        values["train/images_per_second"] = images / max(seconds, 1e-9)
        [values["train/memory_mb"]] = process_group.all_reduce_max(_memory_mb())
        self.reporter.emit(Metrics(step=step, epoch=self.plan.epoch_of(step), values=values))
        self.reporter.step(self.plan, step, seconds, self.schedule.batch_size)

    def _evaluate(self, runner: Any, last: bool) -> None:
        self.reporter.phase("evaluating")
        student = runner.model.student if isinstance(runner.model, Distiller) else runner.model
        scores = self.evaluate(student)
        step, epoch = runner.iter, self.plan.epoch_of(runner.iter)
        values = {f"val/{name}": value for name, value in scores.metrics.items()}
        self.reporter.emit(Metrics(step=step, epoch=epoch, values=values))
        self.reporter.evaluation("student", scores, step=step, epoch=epoch, last=last)
        labels = self._labels(scores.mAP, last)
        if labels and process_group.rank() == 0:
            written = self.save_student(student)
            self.reporter.checkpoint("student", written, step=step, epoch=epoch, labels=labels, metrics=scores.metrics)

    def _labels(self, mAP: float, last: bool) -> list[str]:
        best = self.memory.best is None or mAP > self.memory.best
        self.memory.best = mAP if best else self.memory.best
        return [label for label, held in {"best": best, "last": last}.items() if held]

    def _save(self, runner: Any) -> None:
        self.memory.warnings = self.reporter.warnings
        process_group.broadcast_from_rank0(
            runner.model.buffers()
        )  # they are each process's own, and all go on from rank 0's
        states = process_group.all_gather(random_state())
        if process_group.rank() == 0:
            written = self.checkpoints.save(runner, vars(self.memory), states)
            self.reporter.checkpoint("training", written, step=runner.iter, epoch=self.plan.epoch_of(runner.iter))
        self.checkpointed = time.monotonic()

    def _note_other_processes(self, before: int) -> None:
        now = process_group.world_size()
        if now != before:
            said = f"The checkpoint is of a run of {before} process(es), this one has {now}"
            more = "; those there were not have new random states" if now > before else ""
            self.reporter.log(f"{said}{more}.", "warning")


def _numbers(outputs: dict[str, torch.Tensor]) -> dict[str, float]:
    """All losses, as means over processes, in one transfer from the device."""
    values = torch.stack([value.detach().float().reshape(()) for value in outputs.values()])
    return dict(zip(outputs, process_group.all_reduce_mean(values).tolist(), strict=True))


def _check_finite(losses: dict[str, float], step: int) -> None:
    trained = {name: value for name, value in losses.items() if "loss" in name or name.startswith("distill_")}
    broken = [name for name, value in trained.items() if not math.isfinite(value)]
    if broken:
        parts = [name for name in broken if name != "loss"] or broken
        raise Diverged(f"{', '.join(parts)} became {losses[parts[0]]} at step {step}.")


def _memory_mb() -> float:
    """Peak memory: the GPU's where there is one, else the process's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
