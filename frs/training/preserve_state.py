"""Measuring on a module without leaving a trace: a run that was measured equals one that was not."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from frs.training.sampling import ImageDraw, seeded


@contextmanager
def preserve_state(module: nn.Module) -> Iterator[None]:
    """Buffers, such as a batch norm's running mean, modes and the random state are afterwards as they were before.

    Parameters are the caller's to leave alone. Gradients are gone; before training there are none.
    """
    kept = {name: buffer.clone() for name, buffer in module.named_buffers()}
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
                buffer.copy_(kept[name])
