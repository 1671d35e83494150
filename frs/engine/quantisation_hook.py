"""The hook of kind `quantize`: the ranges that the student's tensors are rounded in."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mmengine.hooks import Hook
from torch.utils.data import DataLoader

from frs.training import process_group
from frs.training.event_reporter import EventReporter
from frs.training.fake_quantisation import FakeQuantiser


@dataclass
class QuantisationHook(Hook):
    """Measure the ranges before each epoch, as the export will measure those of the final weights.

    They hold for the epoch and are part of its checkpoints.
    """

    priority = 81

    quantiser: FakeQuantiser
    build_loader: Callable[[], DataLoader[Any]]
    """Returns a loader of the images that the ranges are measured on."""
    reporter: EventReporter

    def before_train(self, runner: Any) -> None:
        """Set the ranges of a checkpoint that was written within an epoch."""
        self.quantiser.ranges = runner.train_loop.state.ranges

    def before_train_epoch(self, runner: Any) -> None:
        """Measure the ranges."""
        self.reporter.phase("calibrating")
        loader = self.build_loader()
        measured = self.quantiser.measure(loader, lambda done: self.reporter.phase_progress(done, len(loader)))
        ranges = process_group.all_gather(measured)[0]
        self.quantiser.ranges = runner.train_loop.state.ranges = ranges
        self.reporter.log(f"Ranges of {len(ranges)} tensors measured at step {runner.iter}.")
        self.reporter.phase("training")
