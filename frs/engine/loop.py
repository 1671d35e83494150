"""The training loop. It counts steps, so that a run can resume within an epoch, which mmengine's loops cannot."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from mmengine.model import BaseAveragedModel
from mmengine.runner import BaseLoop
from torch import Tensor, nn

from frs.distillation.distiller import Distiller, student_of
from frs.distillation_spec import TermName
from frs.facts import LossWeights
from frs.training.batches import Batch, TrainingLoaders
from frs.training.fake_quantisation import Range
from frs.training.schedule import ResolvedSchedule
from frs.training.stop_request import Interrupted, StopReason


@dataclass
class LoopState:
    """What the hooks carry from step to step; a training checkpoint holds all of it, besides tensors and `iter`."""

    best: float | None = None
    """Highest mAP of the student so far."""
    evaluations_since_best: int = 0
    """Evaluations of the student after the one with its highest mAP."""
    weights: LossWeights | None = None
    """Calibrated weights of the terms."""
    warnings: list[str] = field(default_factory=list)
    shares: dict[TermName, list[float]] = field(default_factory=dict)
    """Gradient ratios of the weighted terms in this epoch, if the weights are adaptive."""
    seconds: float = 0.0
    """Time since the start of training, with evaluations, in all attempts until their last checkpoint."""
    ranges: dict[str, Range] = field(default_factory=dict)
    """Ranges of the student's tensors in this epoch, if the job quantizes."""

    @classmethod
    def from_checkpoint(cls, content: dict[str, Any]) -> "LoopState":
        """Return the state that a checkpoint holds as plain values."""
        weights = LossWeights(**content["weights"]) if content["weights"] else None
        # checkpoints of jobs that were running before these existed lack them
        newer = {"evaluations_since_best": 0, "shares": {}, "seconds": 0.0, "ranges": {}}
        values = {name: content.get(name, default) for name, default in newer.items()}
        return cls(best=content["best"], weights=weights, warnings=content["warnings"], **values)


class StepLoop(BaseLoop):
    """Run the training steps from `iter` on and call mmengine's hooks.

    A step is one update of the parameters, with the gradients of one batch or, with `schedule.accumulate`, of several.
    `dataloader(first, end)` yields the batches of steps `first` to `end` - 1. A `before_train` hook may set `iter` and
    `state` to those of a checkpoint, and any hook `ended_by`.
    """

    def __init__(self, runner: Any, dataloader: TrainingLoaders, resolved_schedule: ResolvedSchedule) -> None:
        self._runner = runner
        self.dataloader = dataloader
        self.resolved_schedule = resolved_schedule
        self.max_epochs, self.max_iters = resolved_schedule.epochs, resolved_schedule.steps
        self.iter = 0
        """Number of completed steps."""
        self.state = LoopState()
        self.average: BaseAveragedModel | None = None
        """Moving average of the student's weights; a `before_train` hook sets it."""
        self.ended_by: StopReason | None = None
        """Reason to end after the current step, or before the first."""
        self.step_seconds = 0.0
        """Time of the last step with the loading of its batches and without hooks, in s."""

    @property
    def student(self) -> nn.Module:
        """The student that is evaluated and delivered: the moving average, if there is one."""
        return self.average.module if self.average else student_of(self.runner.model)

    @property
    def epoch(self) -> int:
        """Number of completed epochs."""
        return self.iter // self.resolved_schedule.steps_per_epoch

    @property
    def ends_epoch(self) -> bool:
        """Whether the last step ended an epoch or the training."""
        return self.iter % self.resolved_schedule.steps_per_epoch == 0 or self.iter == self.resolved_schedule.steps

    def run(self) -> nn.Module:
        """Train to the last step, or until `ended_by` is set, and return the model.

        Raises Interrupted if `ended_by` is an interruption.
        """
        self.runner.call_hook("before_train")
        started = time.monotonic()
        for batches in [] if self._ended() else self._batches_by_step():
            loading_seconds = time.monotonic() - started
            self.run_iter(batches, loading_seconds)
            self._ended()  # an interrupted run does not evaluate
            if self.ends_epoch:
                self.runner.call_hook("after_train_epoch")
            if self._ended():
                break
            started = time.monotonic()
        self.runner.call_hook("after_train")
        return self.runner.model

    def run_iter(self, batches: list[Batch], loading_seconds: float) -> None:
        """Run one training step and its hooks."""
        position = self.iter % self.resolved_schedule.steps_per_epoch
        if position == 0:
            self.runner.call_hook("before_train_epoch")
        self.runner.message_hub.update_info("epoch", self.epoch)  # TOOD's loss changes after some epochs
        self.runner.model.train()
        self.runner.call_hook("before_train_iter", batch_idx=position, data_batch=batches)
        started = time.monotonic()
        # the loss of each batch counts 1 / number of batches, and the last one's backward pass updates the parameters
        self.runner.optim_wrapper.initialize_count_status(self.runner.model, 0, len(batches))
        logs = [self._train_step(batch) for batch in batches]
        self.step_seconds = loading_seconds + time.monotonic() - started
        self.iter += 1
        self.runner.call_hook("after_train_iter", batch_idx=position, data_batch=batches, outputs=logs)

    def _batches_by_step(self) -> Iterator[list[Batch]]:
        """Yield the batches of each step that remains."""
        batches = iter(self.dataloader(self.iter, self.max_iters))
        for step in range(self.iter, self.max_iters):
            count = self.dataloader.first_batch(step + 1) - self.dataloader.first_batch(step)
            yield list(islice(batches, count))

    def _train_step(self, batch: Batch) -> dict[str, Tensor]:
        model, optim_wrapper = self.runner.model, self.runner.optim_wrapper
        if isinstance(model, Distiller):
            return model.train_step(batch, optim_wrapper, self.iter)
        return model.train_step(batch, optim_wrapper)

    def _ended(self) -> bool:
        """Return whether to end now. Raise Interrupted after an interruption."""
        if self.ended_by == "interrupted":
            raise Interrupted
        return self.ended_by is not None
