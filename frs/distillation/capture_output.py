"""Capture a module's output during a block, so that mmdet's `student.loss()` runs once and unmodified."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


class CapturedOutput:
    """The outputs of a module inside a `capture_output` block."""

    def __init__(self) -> None:
        self.outputs: list[Any] = []

    @property
    def output(self) -> Any:
        """The output of the module's only call. Raises RuntimeError unless the module ran exactly once."""
        if len(self.outputs) != 1:
            raise RuntimeError(f"the captured module ran {len(self.outputs)} times, expected once")
        return self.outputs[0]


@contextmanager
def capture_output(module: nn.Module) -> Iterator[CapturedOutput]:
    """Yield an object that collects the outputs of `module` until the block ends."""
    captured = CapturedOutput()
    handle = module.register_forward_hook(lambda _module, _inputs, output: captured.outputs.append(output))
    try:
        yield captured
    finally:
        handle.remove()
