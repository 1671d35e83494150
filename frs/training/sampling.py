"""Which images a step sees, as a function of (seed, step) alone, so that training can start at any step."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np
import torch


class ImageDraw(NamedTuple):
    """One image in one epoch; with the seed it fixes every random choice of augmentation."""

    epoch: int
    image: int


class BatchSampler:
    """The batches of the steps `first` to `steps` - 1, across epochs: each epoch a new order of all images.

    A batch sampler for torch's DataLoader. One iterator runs through all epochs, so its workers start once. Of several
    processes each gets its share of every batch; where the last of an epoch is too short to share out evenly, it is
    filled up with images of the same epoch.
    """

    def __init__(
        self, images: int, batch_size: int, seed: int, first: int, steps: int, rank: int = 0, processes: int = 1
    ) -> None:
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.first, self.steps = first, steps
        self.rank, self.processes = rank, processes

    def __len__(self) -> int:
        return self.steps - self.first

    def __iter__(self) -> Iterator[list[ImageDraw]]:
        per_epoch = -(-self.images // self.batch_size)
        order: list[int] = []
        for step in range(self.first, self.steps):
            epoch, batch = divmod(step, per_epoch)
            if batch == 0 or not order:
                order = self.order(epoch)
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [ImageDraw(epoch, image) for image in self.share(chosen, order)]

    def order(self, epoch: int) -> list[int]:
        return np.random.default_rng([self.seed, epoch]).permutation(self.images).tolist()

    def share(self, batch: list[int], epoch: list[int]) -> list[int]:
        """This process's part of a batch, as many images as every other's."""
        missing = -len(batch) % self.processes
        each = (len(batch) + missing) // self.processes
        return [*batch, *islice(cycle(epoch), missing)][self.rank * each : (self.rank + 1) * each]


@contextmanager
def seeded(seed: int, draw: ImageDraw) -> Iterator[None]:
    """Python's, NumPy's and torch's (CPU) global generators set from (seed, epoch, image) inside, as they were after."""
    python, numpy, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    state = np.random.SeedSequence([seed, draw.epoch, draw.image]).generate_state(3)
    random.seed(int(state[0]))
    np.random.seed(int(state[1]))
    torch.default_generator.manual_seed(int(state[2]))
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_state)
