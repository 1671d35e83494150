"""The training loop. It counts steps, so that a run can resume within an epoch, which mmengine's loops cannot."""

from typing import Any

from mmengine.runner import BaseLoop
from torch import nn

from frs.training.batches import TrainingLoaders
from frs.training.schedule import ResolvedSchedule


class StepLoop(BaseLoop):
    """Run the training steps from `iter` on and call mmengine's hooks.

    `dataloader(first, end)` yields the batches of steps `first` to `end` - 1. A `before_train` hook may set `iter` to
    the step at which a run resumes.
    """

    def __init__(self, runner: Any, dataloader: TrainingLoaders, resolved_schedule: ResolvedSchedule) -> None:
        self._runner = runner
        self.dataloader = dataloader
        self.resolved_schedule = resolved_schedule
        self.max_epochs, self.max_iters = resolved_schedule.epochs, resolved_schedule.steps
        self.iter = 0
        """Number of completed steps."""
        self.ended = False
        """A hook sets this to end training after the current step, or before the first."""

    @property
    def epoch(self) -> int:
        """Number of completed epochs."""
        return self.iter // self.resolved_schedule.steps_per_epoch

    def run(self) -> nn.Module:
        """Train to the last step, or until `ended` is set, and return the model."""
        self.runner.call_hook("before_train")
        for batch in [] if self.ended else self.dataloader(self.iter, self.resolved_schedule.steps):
            starts_epoch = self.iter % self.resolved_schedule.steps_per_epoch == 0
            self.run_iter(batch, starts_epoch)
            if self.ended:
                break
        self.runner.call_hook("after_train")
        return self.runner.model

    def run_iter(self, batch: Any, starts_epoch: bool) -> None:
        """Run one training step and its hooks."""
        if starts_epoch:
            self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        position = self.iter % self.resolved_schedule.steps_per_epoch
        self.runner.call_hook("before_train_iter", batch_idx=position, data_batch=batch)
        logs = self.runner.model.train_step(batch, optim_wrapper=self.runner.optim_wrapper)
        self.iter += 1
        self.runner.call_hook("after_train_iter", batch_idx=position, data_batch=batch, outputs=logs)
        if self.iter % self.resolved_schedule.steps_per_epoch == 0 or self.iter == self.resolved_schedule.steps:
            self.runner.call_hook("after_train_epoch")
