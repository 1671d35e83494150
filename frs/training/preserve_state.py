"""Preserve a module's state during a measurement, so that a run with measurements equals a run without them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from frs.training.sampling import ImageDraw, seeded


@contextmanager
def preserve_state(module: nn.Module) -> Iterator[None]:
    """Restore buffers, train or eval modes and the random state after the block.

    Buffers include a batch norm's running mean. Parameters are not restored: the block must not change them.
    Gradients are removed; before training there are none.
    """
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    modes = {part: part.training for part in module.modules()}
    gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(gpus), seeded(0, ImageDraw(0, 0)):
            yield
    finally:
        module.zero_grad(set_to_none=True)
        for part, training in modes.items():
            part.training = training
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])
