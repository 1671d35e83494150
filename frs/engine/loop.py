"""The training loop: steps, not epochs, so that it starts at any of them. mmengine's cannot start in mid-epoch."""

from typing import Any

from mmengine.runner import BaseLoop
from torch import nn

from frs.training.batches import TrainingLoaders
from frs.training.schedule import ResolvedSchedule


class StepLoop(BaseLoop):
    """Runs the steps from `iter` on, with mmengine's hooks.

    `dataloader(first, end)` gives the batches of those steps. `before_train` hooks may set `iter`, the step
    to go on from.
    """

    def __init__(self, runner: Any, dataloader: TrainingLoaders, plan: ResolvedSchedule) -> None:
        self._runner = runner
        self.dataloader = dataloader
        self.plan = plan
        self.max_epochs, self.max_iters = plan.epochs, plan.steps
        self.iter = 0
        """Steps done."""
        self.ended = False
        """Set by a hook to end training after the step at hand, or before the first."""

    @property
    def epoch(self) -> int:
        return self.iter // self.plan.steps_per_epoch

    def run(self) -> nn.Module:
        self.runner.call_hook("before_train")
        for batch in [] if self.ended else self.dataloader(self.iter, self.plan.steps):
            starts_epoch = self.iter % self.plan.steps_per_epoch == 0
            self.run_iter(batch, starts_epoch)
            if self.ended:
                break
        self.runner.call_hook("after_train")
        return self.runner.model

    def run_iter(self, batch: Any, starts_epoch: bool) -> None:
        if starts_epoch:
            self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        position = self.iter % self.plan.steps_per_epoch
        self.runner.call_hook("before_train_iter", batch_idx=position, data_batch=batch)
        logs = self.runner.model.train_step(batch, optim_wrapper=self.runner.optim_wrapper)
        self.iter += 1
        self.runner.call_hook("after_train_iter", batch_idx=position, data_batch=batch, outputs=logs)
        if self.iter % self.plan.steps_per_epoch == 0 or self.iter == self.plan.steps:
            self.runner.call_hook("after_train_epoch")
