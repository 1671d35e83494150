"""A tap collects what a module returned during a block, so that stock `student.loss()` runs once and unmodified."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


class CapturedOutput:
    """What the module returned at its one call inside the block."""

    def __init__(self) -> None:
        self.outputs: list[Any] = []

    @property
    def output(self) -> Any:
        if len(self.outputs) != 1:
            raise RuntimeError(f"the tapped module ran {len(self.outputs)} times, expected once")
        return self.outputs[0]


@contextmanager
def capture_output(module: nn.Module) -> Iterator[CapturedOutput]:
    tapped = CapturedOutput()
    handle = module.register_forward_hook(lambda _module, _inputs, output: tapped.outputs.append(output))
    try:
        yield tapped
    finally:
        handle.remove()
