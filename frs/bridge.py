"""The one hook between mmengine's Runner and us: its events become ours, and our wishes reach it."""

import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import nn

from frs import events
from frs.calibration import calibrate
from frs.checkpoints import Checkpoints, restore
from frs.distiller import Distiller, Weights
from frs.errors import Diverged
from frs.evaluation import Scores
from frs.schedule import Plan
from frs.spec import Schedule
from frs.stopping import Interrupted, StopRequest
from frs.weights import Written

CALIBRATION_BATCHES = 4
CHECKPOINT_SECONDS = 600
PROGRESS_SECONDS = 0.5


@dataclass
class Memory:
    """What a run must remember beside tensors; part of every training checkpoint."""

    teacher: dict[str, Any] | None = None
    """The teacher's scores, so that a resumed run does not measure them again."""
    best: float | None = None
    """Highest mAP of the student so far."""
    weights: dict[str, Any] = field(default_factory=dict)
    """The terms' weights once calibrated."""


@dataclass
class Bridge(Hook):
    """Emits metrics, progress, evaluations and checkpoints; calibrates, evaluates, stops. Raises Diverged, Interrupted."""

    priority = "VERY_LOW"

    plan: Plan
    schedule: Schedule
    emit: events.Emit
    stop: StopRequest
    checkpoints: Checkpoints
    evaluate: Callable[[nn.Module], Scores]
    save_student: Callable[[nn.Module], Written]
    root: Path
    memory: Memory

    def __post_init__(self) -> None:
        self.student_file: Path | None = None
        self.step_started = self.progress_told = self.checkpointed = time.monotonic()
        self.seconds_per_step: float | None = None

    def before_train(self, runner: Any) -> None:
        content = self.checkpoints.newest()
        if content is not None:
            self.memory = Memory(**restore(runner, content))
            if self.memory.weights:
                runner.model.weights = Weights(**self.memory.weights)
        self.emit(events.Rewound(to_step=runner.iter))
        self._evaluate_if_due(runner)  # the checkpoint of an epoch's end is written before its evaluation
        self.emit(events.Phase(phase="training"))
        self.step_started = self.checkpointed = time.monotonic()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.learning_rate = float(runner.optim_wrapper.optimizer.param_groups[0]["lr"])
        if not isinstance(runner.model, Distiller):
            return
        runner.model.step = runner.iter
        if not runner.model.weights.known and runner.iter >= min(self.plan.warmup_steps, self.plan.steps - 1):
            self._calibrate(runner)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        seconds = time.monotonic() - self.step_started
        self._tell(runner.iter, _numbers(outputs), len(data_batch["inputs"]), seconds)
        if self.stop.why == "interrupted":
            self._save(runner)
            raise Interrupted
        runner.train_loop.ended = self.stop.why == "time_limit"
        if self._checkpoint_due(runner.iter):
            self._save(runner)
        self.step_started = time.monotonic()

    def after_train_epoch(self, runner: Any) -> None:
        self._save(runner)
        self._evaluate_if_due(runner)
        self.step_started = time.monotonic()

    def after_train(self, runner: Any) -> None:
        self._evaluate(runner, last=True)

    def _checkpoint_due(self, step: int) -> bool:
        if step % self.plan.steps_per_epoch == 0 or step == self.plan.steps:
            return False  # there is one at the end of every epoch
        every = self.schedule.checkpoint_every
        return step % every == 0 if every else time.monotonic() - self.checkpointed > CHECKPOINT_SECONDS

    def _evaluate_if_due(self, runner: Any) -> None:
        epoch, rest = divmod(runner.iter, self.plan.steps_per_epoch)
        if epoch and not rest and runner.iter < self.plan.steps and epoch % self.schedule.evaluate_every == 0:
            self._evaluate(runner, last=False)

    def _calibrate(self, runner: Any) -> None:
        self.emit(events.Phase(phase="calibrating"))
        loader = iter(runner.train_loop.dataloader(runner.iter, runner.iter + CALIBRATION_BATCHES))
        distiller = runner.model
        distiller.weights = calibrate(distiller, loader)
        self.memory.weights = vars(distiller.weights)
        told = f"feature {distiller.weights.feature:.3g}, logit {distiller.weights.logit:.3g}"
        self.emit(events.Log(message=f"Weights calibrated at step {runner.iter}: {told}."))
        self.emit(events.Facts(values={"weights": self.memory.weights}))
        self.emit(events.Phase(phase="training"))
        self.step_started = time.monotonic()

    def _tell(self, step: int, losses: dict[str, float], images: int, seconds: float) -> None:
        _check_finite(losses, step)
        epoch = self.plan.epoch_of(step)
        rate = images / max(seconds, 1e-9)
        values = {f"train/{name}": value for name, value in losses.items()}
        values |= {"train/lr": self.learning_rate}
        values |= {"train/images_per_second": rate, "train/memory_mb": _memory_mb()}
        self.emit(events.Metrics(step=step, epoch=epoch, values=values))
        smooth = self.seconds_per_step
        self.seconds_per_step = seconds if smooth is None else 0.9 * smooth + 0.1 * seconds
        if time.monotonic() - self.progress_told > PROGRESS_SECONDS or step == self.plan.steps:
            self._progress(step, epoch)

    def _progress(self, step: int, epoch: int) -> None:
        self.progress_told = time.monotonic()
        seconds = self.seconds_per_step or 0.0
        self.emit(
            events.Progress(
                epoch=epoch,
                epochs=self.plan.epochs,
                step=step,
                steps=self.plan.steps,
                fraction=step / self.plan.steps,
                eta_seconds=seconds * (self.plan.steps - step),
                images_per_second=self.schedule.batch_size / seconds if seconds else None,
            )
        )

    def _evaluate(self, runner: Any, last: bool) -> None:
        self.emit(events.Phase(phase="evaluating"))
        student = runner.model.student if isinstance(runner.model, Distiller) else runner.model
        scores = self.evaluate(student)
        step, epoch = runner.iter, self.plan.epoch_of(runner.iter)
        self.emit(events.Metrics(step=step, epoch=epoch, values={f"val/{k}": v for k, v in scores.metrics.items()}))
        self.emit(evaluation_event("student", scores, step, epoch, last))
        best = self.memory.best is None or scores.mAP > self.memory.best
        if best or last:
            self.memory.best = scores.mAP if best else self.memory.best
            labels = (("best",) if best else ()) + (("last",) if last else ())
            self._announce("student", self.save_student(student), step, epoch, labels, scores.metrics)
        self.emit(events.Phase(phase="training" if not last else "exporting"))

    def _save(self, runner: Any) -> None:
        written = self.checkpoints.save(runner, vars(self.memory))
        self._announce("training", written, runner.iter, self.plan.epoch_of(runner.iter))
        self.checkpointed = time.monotonic()

    def _announce(
        self, kind: Any, written: Written, step: int, epoch: int, labels: Any = (), metrics: Any = None
    ) -> None:
        self.emit(
            events.Checkpoint(
                kind=kind,
                path=str(written.path.relative_to(self.root)),
                sha256=written.sha256,
                bytes=written.bytes,
                step=step,
                epoch=epoch,
                labels=labels,
                metrics=metrics or {},
            )
        )


def evaluation_event(role: events.Role, scores: Scores, step: int, epoch: int, last: bool) -> events.Evaluation:
    return events.Evaluation(
        role=role,
        step=step,
        epoch=epoch,
        metrics=scores.metrics,
        per_class=scores.per_class,
        images=scores.images,
        detections=scores.detections,
        last=last,
    )


def _numbers(outputs: dict[str, torch.Tensor]) -> dict[str, float]:
    """All losses in one transfer from the device."""
    values = torch.stack([value.detach().float().reshape(()) for value in outputs.values()]).tolist()
    return dict(zip(outputs, values, strict=True))


def _check_finite(losses: dict[str, float], step: int) -> None:
    broken = [name for name, value in losses.items() if not math.isfinite(value)]
    if broken:
        parts = [name for name in broken if name != "loss"] or broken
        raise Diverged(f"{', '.join(parts)} became {losses[parts[0]]} at step {step}.")


def _memory_mb() -> float:
    """Peak memory: the GPU's where there is one, else the process's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
